"""Train, kill, resume, evaluate, over and over: what is resumed must equal what was never killed.

``python -m benchmarks.soak --minutes 60 --out FOLDER`` takes one system after another, in rounds.
Of each it trains one run to its end, and another that is killed with SIGKILL every few seconds, at
random moments or just as a checkpoint is written, and resumed. Then both must agree bit for bit:
weights, state of the optimizer, random states, records but for the seconds they took, metrics.
``FOLDER/soak.md`` has the table. An interrupted soak goes on where it was, and the exit status is
1 after any failure.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks._compared import check_checkpoints, differences
from benchmarks._killed import end, outlive, start
from benchmarks._tally import Tally, table
from pyro_dpvae._files import write_whole

SYSTEMS = {
    "beta, couplings": "--objective beta --objective.beta 4 --objective.schedule.beta linear "
    "--objective.schedule.beta.steps 300",
    "beta-TC, mixture": "--objective beta-tc --prior mixture",
    "factor, couplings": "--objective factor --objective.hidden [64,64]",
    "free bits, flow guide": "--objective free-bits --guide flow --prior standard",
    "info, vamp": "--objective info --prior vamp --prior.components 50",
    "DIP, resampled": "--objective dip --prior resampled",
    "MAE, autoregressive": "--objective mae --prior autoregressive",
    "capacity, semi-amortized": "--objective capacity --guide semi-amortized --prior standard",
    "ELBO, Laplace guide": "--guide laplace --prior standard",
    "ELBO, recursive mixture": "--guide recursive-mixture --growth-steps 50 --prior standard",
    "soft free bits, ladder": "--model ladder --network ladder-mlp --network.latent_dims [3,5] "
    "--network.width 64 --objective soft-free-bits",
    "clustering ladder": "--recipe vlac --network.width 64 --cluster-step 100 "
    "--objective.schedule.beta.steps 100",
}
"""Options of ``dpvae train`` by what they stand for: every guide, every prior, all objectives."""

_PLAIN = "--network mlp --network.hidden [128] --latent-dim 8"
_KEPT = "soak.json"
_LEAST = 2  # kills of a run, if it does not end before
_TOO_MANY = 20  # failures, after which more of them say nothing new


class Soak:
    """A soak in a folder: what it did so far, and what comes next.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, options.out
        path = self.folder / _KEPT
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.spent: float = kept.get("seconds", 0.0)
        self.place: int = kept.get("place", 0)
        self.tallies = {name: Tally(**one) for name, one in kept.get("tallies", {}).items()}
        # Another start goes on with other moments than those that it began with.
        self.random = random.Random(f"{options.seed}, {self.spent}")
        self.since = time.monotonic()

    def run(self, systems: Sequence[str]) -> bool:
        """Take systems in turn until the time is over; returns whether all went well."""
        limit = 60 * self.options.minutes
        form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s {postfix}"
        with tqdm(total=limit, initial=min(self.spent, limit), bar_format=form) as self.bar:
            while self.spent < limit and self._failures < _TOO_MANY:
                name = systems[self.place % len(systems)]
                self.bar.set_description(name)
                self.configuration(name, seed=self.place // len(systems))
                self.place += 1
                self.keep()
        return not self._failures

    @property
    def _failures(self) -> int:
        return sum(len(tally.failures) for tally in self.tallies.values())

    def configuration(self, name: str, *, seed: int) -> None:
        """Train a system with and without kills, and compare."""
        tally = self.tallies.setdefault(name, Tally())
        place = self.folder / f"{self.place:04}"
        whole, killed = place / "whole", place / "killed"
        command = ["train", *self._options(name), "--seed", str(seed)]
        problems = self._reference([*command, "--out", str(whole)], place, tally)
        problems = problems or self._survive([*command, "--resume", str(killed)], killed, tally)
        problems = problems or self._evaluated((whole, killed), place, tally)
        problems = problems or differences(whole, killed)
        tally.configurations += 1
        tally.failures += [f"{place}: {problem}" for problem in problems]
        if not problems:
            shutil.rmtree(place)  # a failure is kept, to be looked into

    def _reference(self, command: list[str], place: Path, tally: Tally) -> list[str]:
        """Train the run that is never killed, but with the soak, and then from its start."""
        done = place / "whole.done"
        if done.exists():
            return []
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        found = end(start(command, place / "whole.log"))
        tally.peak = max(tally.peak, found.peak)
        if found.status:
            return [f"the run without kills ended with {found.status}: {found.message}"]
        done.touch()
        return []

    def _survive(self, command: list[str], run: Path, tally: Tally) -> list[str]:
        """Train the run that is killed, to its end."""
        patience, kills = self.options.interval, 0
        while True:
            before = _newest(run)
            writing = self.random.random() < 0.5
            # After the time is over the run goes to its end, and is compared.
            over = kills >= _LEAST and self.spent >= 60 * self.options.minutes
            seconds = None if over else self.random.uniform(0, 2 * patience)
            watched = run / "checkpoints" if writing else None
            found = outlive(
                start(command, run.with_suffix(".log")),
                seconds=seconds,
                watched=watched,
                delay=self.random.uniform(0, 0.02),
                early=self.random.random() < 0.2,
            )
            tally.peak = max(tally.peak, found.peak)
            if not found.killed:
                bad = f"a resumed run ended with {found.status}: {found.message}"
                return [bad] if found.status else []
            kills += 1
            tally.kills += 1
            tally.in_writing += found.in_writing
            checked, problems = check_checkpoints(run)
            tally.checkpoints += checked
            if problems:
                return problems
            if _newest(run) is not None:
                tally.resumes += 1
                problems = self._opened(run, tally)
                if problems:
                    return problems
            # A life too short to reach a checkpoint must not be all that a slow system has.
            patience = self.options.interval if _newest(run) != before else 1.5 * patience
            self.keep()

    def _opened(self, run: Path, tally: Tally) -> list[str]:
        """Use a killed run as it is, now and then."""
        if self.random.random() < 0.7:
            return []
        found = end(start(["sample", str(run), "--number", "4"], run.with_suffix(".log")))
        return [f"sample of a killed run: {found.message}"] if found.status else []

    def _evaluated(self, runs: Sequence[Path], place: Path, tally: Tally) -> list[str]:
        command = ["--metrics", "elbo,skl", "--latent-samples", "200"]
        for run in runs:
            found = end(start(["evaluate", str(run), *command], place / "evaluate.log"))
            tally.peak = max(tally.peak, found.peak)
            if found.status:
                return [f"evaluate {run}: {found.message}"]
        tally.evaluations += len(runs)
        return []

    def _options(self, name: str) -> list[str]:
        options, chosen = self.options, SYSTEMS[name]
        every = max(1, options.steps // 15)
        own = "" if "--network" in chosen else _PLAIN
        shared = (
            f"--data {options.data} --steps {options.steps} --checkpoint-every {every} "
            f"--evaluate-every {max(1, options.steps // 3)} --backend {options.backend}"
        )
        return shlex.split(f"{shared} {own} {chosen}")

    def keep(self) -> None:
        """Write what there is, where another start finds it."""
        now = time.monotonic()
        self.spent += now - self.since
        self.since = now
        self.bar.update(min(self.spent, self.bar.total) - self.bar.n)
        kills = sum(tally.kills for tally in self.tallies.values())
        self.bar.set_postfix_str(f"{kills} kills")
        tallies = {name: asdict(tally) for name, tally in self.tallies.items()}
        kept = {"seconds": self.spent, "place": self.place, "tallies": tallies}
        write_whole(self.folder / _KEPT, json.dumps(kept, indent=2).encode())
        write_whole(self.folder / "soak.md", table(self.tallies, self.spent).encode())


def _newest(run: Path) -> int | None:
    """Return the step of a run's newest checkpoint."""
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit()]
    return max(steps, default=None)


def main() -> int:
    """Soak, and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, with what was done")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results lie")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument(
        "--interval", type=float, default=2.5, help="mean seconds of training to a kill"
    )
    parser.add_argument("--steps", type=int, default=2000, help="of each run")
    parser.add_argument("--backend", default="fx", help="how steps run, as dpvae train takes it")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    root = os.environ.get("DPVAE_DATA")
    there = root is not None and Path(root, "MNIST", "raw").is_dir()
    parser.add_argument("--data", default="mnist" if there else "digits")
    options = parser.parse_args()
    torch.set_num_threads(1)  # before the first operation: threads do not outlive a fork
    soak = Soak(options)
    try:
        well = soak.run(options.systems)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on in {options.out}", file=sys.stderr)
        return 130
    print((options.out / "soak.md").read_text())
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
