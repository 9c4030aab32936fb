"""A run in training: the work in a step, after a step, and at the end."""

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from signal import Signals
from typing import Any, final

import pyro
from torch import nn

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._randomness import noise_seed, random_state, set_random_state
from pyro_dpvae._ranks import (
    gather_objects,
    greatest,
    on_first_rank,
    ranks,
    refusing_together,
    shared_object,
)
from pyro_dpvae.data import Batches
from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.inference import AccumulatingOptim, synchronize
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.runs import AVERAGE, Checkpoint, RunFolder, Stateful
from pyro_dpvae.training.callbacks import AbstractCallback, Context, end_all
from pyro_dpvae.training.checks import check_resumed, hold_together
from pyro_dpvae.training.config import TrainConfig
from pyro_dpvae.training.guard import NonFiniteError
from pyro_dpvae.training.guide_changes import guide_changes
from pyro_dpvae.training.held_out import (
    average_norms,
    evaluate_elbo,
    evaluate_loss,
    finite_evaluation,
)
from pyro_dpvae.training.interrupts import Interrupts
from pyro_dpvae.training.loop import take_steps
from pyro_dpvae.training.progress import History, Place, Progress
from pyro_dpvae.training.settings import differences, environment, settings_of
from pyro_dpvae.training.steps import Steps, Updates

__all__ = ["Trainer"]

# torchrun waits for 30 seconds from a signal to the end of its processes.
_STEPS_TO_AGREE = 8


@final
class Trainer:
    """A run in training, with the arguments of :func:`fit`.

    Attributes:
        place: the progress of the run.
        history: the records so far.
        weights: the parts whose weights a checkpoint stores, by name.
        stateful: further parts with a state in the checkpoint, by name.
        interrupts: the signals; one ends a change of the guide at once.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        *,
        objective: RegularizedELBO,
        train: Batches,
        test: Batches,
        config: TrainConfig,
        run: RunFolder | None,
        state: Mapping[str, Any],
        callbacks: Sequence[AbstractCallback],
        growth: Iterable[int],
    ) -> None:
        self.model, self.guide, self.objective = model, guide, objective
        self.train, self.test, self.config, self.run = train, test, config, run
        self.several = ranks().count > 1
        modules = {"model": model, "guide": guide}
        folder = None if run is None else run.path / "nonfinite"
        self.steps = Steps(modules, objective, config=config, folder=folder)
        self.svi = self.steps.svi
        self.place = Place(cluster_step=config.cluster_step, growth=sorted(growth))
        self.history = History()
        # An evaluation after s steps has the weights of the last of them, of index s - 1.
        lengths = [length + 1 for length in objective.unfinished(0).values()]
        begins = max([0, *lengths, config.cluster_step or 0, *self.place.growth])
        self.progress = Progress(config.monitor, patience=config.patience, begins=begins)
        self.weights: dict[str, Stateful] = {**modules, "objective": objective}
        if self.steps.average is not None:
            parts = self.steps.average.parts()
            self.weights |= {f"{AVERAGE}{name}": part for name, part in parts.items()}
        self.stateful: dict[str, Stateful] = {
            "place": self.place,
            "updates": Updates(self.svi, self.steps.optim, modules),
            "steps": self.steps,
            "progress": self.progress,
        }
        # Recorded now: the device may change later, and so may the objective as it takes steps.
        self._environment = environment(model)
        self._settings = settings_of(config, objective)
        self._callbacks = list(callbacks) if ranks().index == 0 else []
        self.interrupts = Interrupts(never=self.several)
        self._signal: Signals | None = None  # agreed on by all ranks
        self._saved: int | None = None
        self._extra = dict(state)

    def start(self, resume: bool | Checkpoint) -> None:
        """Begin the run, or resume it from a checkpoint; all ranks must call it.

        Args:
            resume: True resumes from the last checkpoint, if there is one; or the checkpoint to
                resume.
        """
        if self.several:
            self.objective.across_ranks()
        pyro.set_rng_seed(noise_seed(self.config.seed, ranks().index))
        news: list[dict[str, Any]] = []
        with refusing_together():
            checkpoint = self._checkpoint(resume)
            if checkpoint is not None:
                news = self._load(checkpoint)
            elif self.run is not None and ranks().index == 0:
                self.run.go_back(step=-1, logged=0)
        synchronize(self.model, self.guide, self.objective)
        step = self.place.step
        before = tuple(self.history.records)
        context = Context(self.model, self.guide, self.objective, self.config, step, before)
        for callback in self._callbacks:
            callback.started(context)
        if checkpoint is None:
            self.steps.changed()  # all ranks start the average with the same weights
            self.record({"step": 0, "objective": self.objective.settings, **self._environment})
        for entry in news:
            self.record({"step": step, **entry})

    def train_all(self, *, progress: bool) -> History:
        """Take the remaining steps; return the history."""
        place, steps = self.place, self.config.steps
        self._bar = progress_bar(
            initial=place.step,
            total=steps,
            disable=not progress,
            unit="step",
            dynamic_ncols=True,
        )
        if self.svi.backend == "inductor":
            self._bar.set_description("compiling the step")
        self._start = time.monotonic() - place.seconds
        self._recordings = self.svi.recordings  # a resumed run has earlier ones
        with self._bar, self.interrupts, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN: loss")  # the guard handles it
            failed: BaseException | None = None
            try:
                if place.concluded < place.step < steps:
                    self._follow()
                self._listen()
                if self._goes_on:
                    take_steps(self)
                self._end()
            except BaseException as error:  # including KeyboardInterrupt
                failed = error
                raise
            finally:
                self.history.step = self.place.step
                end_all(self._callbacks, self.history, failed=failed)
        return self.history

    def keep_what_is_trained(self, error: Exception) -> None:
        """Write a checkpoint between two steps, before an error of the data ends training."""
        # Other ranks wait for a step, not for a checkpoint.
        if self.run is None or self.several or not self.place.step:
            return
        if self._saved != self.place.step:
            self.save()
        error.add_note(
            f"a checkpoint of step {self.place.step} was written: resume the run in "
            f"{self.run.path}"
        )

    def record(self, entry: dict[str, Any]) -> None:
        """Add a record to the history and the run."""
        self.history.records.append(entry)
        if self.run is not None and ranks().index == 0:
            self.run.log(entry)
        for callback in self._callbacks:
            callback.recorded(entry)

    def evaluate(self) -> None:
        """Evaluate on held-out data and record the ELBO and its terms."""
        average_norms(self.model, self.guide)
        step, config = self.place.step, self.config
        average = self.steps.average
        self.steps.guarded.check(step)
        try:
            with (
                nullcontext() if average is None else average.in_use(),
                finite_evaluation(self.model, self.guide, self.test, after=step),
            ):
                held_out = evaluate_elbo(self.model, self.guide, self.test)
                if config.monitor == "loss":
                    loss = evaluate_loss(self.model, self.guide, self.objective, self.test)
                    held_out["loss"] = loss
        except NonFiniteError:
            self.record({"step": step, **self.steps.notes})
            raise
        except (OSError, ValueError) as error:  # such as data that cannot be read
            self.place.concluded = step - 1  # a resumed run repeats the evaluation
            self.keep_what_is_trained(error)
            raise
        weights = {} if average is None else {"weights": "average"}
        self.record({"step": step, "held_out": held_out, **weights})
        self._bar.set_description(f"held-out ELBO {held_out['elbo']:.2f}")
        self.progress.observe(step, shared_object(held_out[config.monitor]))

    def save(self) -> None:
        """Write a checkpoint; all ranks must call it."""
        if self.run is None:
            return
        self.steps.guarded.check(self.place.step)
        self._saved = self.place.step
        self.place.seconds = time.monotonic() - self._start
        average_norms(self.model, self.guide)
        hold_together(self.model, self.guide, self.objective)
        if isinstance(self.svi.optim, AccumulatingOptim):
            self.svi.optim.share()
        training: dict[str, Any] = {n: part.state_dict() for n, part in self.stateful.items()}
        training["random"] = {"ranks": gather_objects(random_state())}
        on_first_rank(lambda: self._write(training))

    def _write(self, training: dict[str, Any]) -> None:
        assert self.run is not None
        training |= {
            "logged": self.run.logged,
            "settings": self._settings,
            "environment": self._environment,
        }
        kinds = {"model": type(self.model), "guide": type(self.guide)}
        classes = {name: f"{kind.__module__}.{kind.__qualname__}" for name, kind in kinds.items()}
        state = {
            "item_shape": list(self.train.item_shape),
            "dataset_size": self.train.size,
            "preprocessing": self.train.preprocessing,
            "classes": classes,
            **self._extra,
            "step": self.place.step,
            "best": self.progress.best_step,
        }
        path = self.run.save(self.weights, state, training=training)
        for callback in self._callbacks:
            callback.checkpointed(path)

    def _checkpoint(self, resume: bool | Checkpoint) -> Checkpoint | None:
        if self.run is None:
            return resume if isinstance(resume, Checkpoint) else None
        on_first_rank(self.run.tidy)
        if isinstance(resume, Checkpoint):
            # It was read before this process had the lock; another process may have trained since.
            again = self.run.checkpoint(resume.step)
            if again.digest != resume.digest:
                raise CheckpointError(
                    f"{resume.path} has changed since it was read: another process has written "
                    f"{again.path}; read the checkpoint again"
                )
            return again
        if not self.run.steps():
            return None
        if not resume:
            raise FileExistsError(
                f"{self.run.path} already has checkpoints; resume it with resume=True, or choose "
                "another folder"
            )
        return self.run.checkpoint("last")

    def _load(self, checkpoint: Checkpoint) -> list[dict[str, Any]]:
        """Load a checkpoint; return the records to add about it."""
        check_resumed(checkpoint, config=self.config, objective=self.objective)
        training = checkpoint.training()
        checkpoint.load(self.weights)
        for name, part in self.stateful.items():
            part.load_state_dict(training[name])
        self._saved = checkpoint.step
        news: list[dict[str, Any]] = []
        changed = differences(training["settings"], self._settings)
        if changed := changed | differences(training["environment"], self._environment):
            news.append({"changed": {name: value for name, (_, value) in changed.items()}})
        if self.run is not None:
            self.history.records = list(self.run.records(training["logged"]))
            missing = 0
            if ranks().index == 0:
                missing = self.run.go_back(checkpoint.step, logged=training["logged"])
            if missing := shared_object(missing):
                last = self.history.records[-1]["step"] if self.history.records else None
                news.append({"missing": {"bytes": missing, "after_step": last}})
        states, here = training["random"]["ranks"], ranks()
        if len(states) == here.count:
            set_random_state(states[here.index])
        else:
            pyro.set_rng_seed(noise_seed(self.config.seed, here.index, step=checkpoint.step))
            news.append({"ranks": here.count, "noise": "drawn anew"})
        return news

    @property
    def _goes_on(self) -> bool:
        return self._signal is None and not self.progress.exhausted

    def after_step(self, finite: bool) -> bool:
        """Record the step, do the work after it, and check signals; return True to continue."""
        step, steps = self.place.step, self.config.steps
        self._bar.update()
        if self.svi.recordings > self._recordings:
            self._recordings = self.svi.recordings
            seconds = round(self.svi.recorded_seconds, 3)
            backend = self.svi.backend
            self.record({"step": step, "backend": backend, "recorded_seconds": seconds})
            self._bar.set_description(f"step captured in {seconds:.1f} s")
        if step % self.config.log_every == 0 or step == steps:
            self._log(finite)
        if step < steps:
            self._follow()
        self._listen()
        return self._goes_on

    def _listen(self) -> None:
        """Note a signal; with several ranks only every few steps, so that all end at the same."""
        signal = self.interrupts.signal
        if self.several:
            if self.place.step % _STEPS_TO_AGREE:
                return
            number = greatest(signal or 0, device=self.train.device)
            signal = Signals(number) if number else None
        self._signal = signal

    def _log(self, finite: bool) -> None:
        step = self.place.step
        self.steps.guarded.check(step)
        terms = {name: float(term) for name, term in self.objective.terms.items()}
        entry: dict[str, Any] = {"step": step, **(terms if finite else {}), **self.steps.notes}
        if self.config.rate_moves:
            entry["learning_rate"] = self.config.learning_rate_at(step - 1)
        self.record({**entry, "seconds": round(time.monotonic() - self._start, 3)})
        if finite:
            self._bar.set_postfix({"loss": f"{terms['loss']:.2f}"}, refresh=False)

    def _follow(self) -> None:
        """Apply the guide's own changes, evaluate and write checkpoints, where due."""
        place, config = self.place, self.config
        try:
            for changed in guide_changes(self, progress=not self._bar.disable):
                self.record({"step": place.step, **changed})
                words = (f"{name} {value}" for name, value in changed.items())
                self._bar.set_description(", ".join(words))
        except KeyboardInterrupt:
            self.interrupts.note()  # the change was rolled back; a resumed run makes it
            return
        place.concluded = place.step
        if place.step % config.evaluate_every == 0:
            self.evaluate()
            self.save()
        elif config.checkpoint_every and place.step % config.checkpoint_every == 0:
            self.save()

    def _end(self) -> None:
        """Write what is left; after a signal the checkpoint comes first."""
        step = self.place.step
        if self.progress.exhausted and self._signal is None:
            self.history.stopped = True
            return  # already evaluated and saved
        if step < self.config.steps:
            self.history.signal = self._signal
            if self._saved != step:
                self.save()  # before the evaluation, whose record a resumed run writes again
            if self.history.evaluated != step:
                self.evaluate()
            return
        self.place.concluded = step
        if self._saved != step or self.history.evaluated != step:
            self.evaluate()
            self.save()
