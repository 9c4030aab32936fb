"""Benchmarks beside other libraries: what needs no network, by scripts that stand in for them."""

import itertools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import _peers, importance, step
from benchmarks._handed import STEPS, check_falls, check_terms, hand_over
from benchmarks._peers import Peer, PeerStep, interpreter, one_core
from benchmarks._products import HERE, Floor, rates, shape_of

STAND_IN = f"""
import os, sys, time
sys.path.insert(0, {str(Path(_peers.__file__).parent / "peers")!r})
from serve import serve

def steps(count, last):
    print("taking steps")
    start = time.process_time()
    while time.process_time() < start + 0.01 * count:
        pass
    return [*range(count - 1), last]

def fail():
    raise ValueError("no such image")

def end():
    raise SystemExit

def place():
    return [os.environ["OMP_NUM_THREADS"], len(os.sched_getaffinity(0)), sys.argv[1:]]

def prepare(name, library, products):
    pass

def compute(name, count):
    return steps(count, None)

serve(dict(steps=steps, fail=fail, end=end, place=place, prepare=prepare, compute=compute))
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return script


def test_a_peer_answers_with_results_and_processor_seconds(stand_in: Path) -> None:
    with Peer(Path(sys.executable), stand_in) as peer:
        found, seconds = peer.timed("steps", count=3, last="z")
        assert found == [0, 1, "z"]
        assert seconds >= 0.03
        one = PeerStep(peer, "steps", last=7)
        assert one() == 7
        assert one.time(0.0) >= 0.01
        with pytest.raises(RuntimeError, match="no such image"):
            peer.call("fail")
        assert one.several(2) == [0, 7]  # it goes on after an error
        with pytest.raises(RuntimeError, match="has ended"):
            peer.call("end")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process")
def test_a_peer_runs_on_one_core_and_one_thread(stand_in: Path) -> None:
    before = os.sched_getaffinity(0)
    with one_core(), Peer(Path(sys.executable), stand_in, "model.npz") as peer:
        assert os.sched_getaffinity(0) < before or len(before) == 1
        assert peer.call("place") == ["1", 1, ["model.npz"]]
    assert os.sched_getaffinity(0) == before


def test_an_environment_is_made_once_and_again_for_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_peers, "REQUIREMENTS", {"one": ("one==1",), "absent": ("./absent.whl",)})
    calls = tmp_path / "calls"

    def create(place: Path, **_: Any) -> None:
        program = place / "bin" / "python"
        program.parent.mkdir(parents=True, exist_ok=True)
        if place.name == "absent":
            program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        else:
            program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
        program.chmod(0o755)

    monkeypatch.setattr(_peers.venv, "create", create)
    for _ in range(2):
        assert interpreter("one", tmp_path).exists()
    assert calls.read_text().splitlines() == ["-m pip install --quiet one==1"]
    assert "Installing one==1" in capsys.readouterr().err
    monkeypatch.setitem(_peers.REQUIREMENTS, "one", ("one==2",))
    interpreter("one", tmp_path)
    assert len(calls.read_text().splitlines()) == 2
    with pytest.raises(SystemExit, match=r"needs \./absent\.whl.*--environments"):
        interpreter("absent", tmp_path)
    assert not list((tmp_path / "absent").glob("*.json"))  # so that it is tried again


def perceptron(arrays: dict[str, Any], name: str, h: Any, activation: Any) -> Any:
    for number in itertools.count():
        if f"{name}.{number}.weight" not in arrays:
            return h
        h = activation(h) if number else h
        h = h @ arrays[f"{name}.{number}.weight"].T + arrays[f"{name}.{number}.bias"]


def densities(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return log p(x | z), log p(z) and log q(z | x) in NumPy."""

    def normal(e: Any) -> Any:
        return -0.5 * (e**2 + np.log(2 * np.pi)).sum(-1)

    x, noise = arrays["x"], arrays["noise"]
    mean, log_variance = np.split(
        perceptron(arrays, "encoder", x, lambda h: h.clip(0)), 2, axis=-1
    )
    z = mean + np.exp(log_variance / 2) * noise
    logits = perceptron(arrays, "decoder", z, lambda h: h.clip(0))
    halves, log_det = np.split(z, 2, axis=-1), 0.0
    for block in reversed(range(6)):
        kept, moved = halves[block % 2], halves[1 - block % 2]
        shift, log_scale = (
            np.tanh(
                perceptron(
                    arrays, f"coupling.{block}.{part}", kept, lambda h: h / (1 + np.exp(-h))
                )
            )
            for part in ("shift", "scale")
        )
        halves[1 - block % 2] = (moved - shift) * np.exp(-log_scale)
        log_det = log_det - log_scale.sum(-1)
    return {
        "x": (x * logits - np.logaddexp(0, logits)).sum(-1),
        "z": normal(np.concatenate(halves, -1)) + log_det,
        "q": normal(noise) - log_variance.sum(-1) / 2,
    }


def test_what_is_handed_over_is_the_whole_model(tmp_path: Path) -> None:
    model, guide, x = step.build("mlp", batch=3)
    path = tmp_path / "handed.npz"
    hand_over(model, guide, x, path)
    terms = densities({name: value.astype(np.float64) for name, value in np.load(path).items()})
    check_terms({name: value.tolist() for name, value in terms.items()}, model, guide, x, path)
    for name, value in terms.items():
        with pytest.raises(AssertionError, match=f"densities {name}"):
            check_terms({name: (value * 1.001).tolist()}, model, guide, x, path)


def test_a_closed_form_rate_is_compared_too(tmp_path: Path) -> None:
    model, guide, x = step.build("vae", batch=3)
    path = tmp_path / "handed.npz"
    hand_over(model, guide, x, path)
    normal = torch.distributions.Normal
    with torch.no_grad():
        q = guide.posterior(x)
    rate = torch.distributions.kl_divergence(normal(q.mean, q.stddev), normal(0.0, 1.0)).sum(-1)
    check_terms({"rate": [float(rate.mean())]}, model, guide, x, path)
    with pytest.raises(AssertionError, match="densities rate"):
        check_terms({"rate": [1.001 * float(rate.mean())]}, model, guide, x, path)


def falling(rate: float, *, seed: int) -> list[float]:
    """Return losses that fall exponentially, with noise."""
    noise = np.random.default_rng(seed).normal(size=STEPS)
    return list(540 + 200 * np.exp(-rate * np.arange(STEPS)) + noise)


def test_losses_that_fall_at_another_rate_are_refused() -> None:
    check_falls(falling(0.010, seed=1), falling(0.010, seed=2))
    for rate in (0.009, 0.012, 0.0):
        with pytest.raises(AssertionError, match="do not fall as ours"):
            check_falls(falling(0.010, seed=1), falling(rate, seed=2))


@pytest.mark.parametrize("library", HERE)
def test_each_library_computes_the_product(library: str) -> None:
    for a in (torch.randn(3, 7), torch.randn(7, 3).T):
        for b in (torch.randn(7, 5), torch.randn(5, 7).T):
            product = HERE[library](a, b, torch.empty(3, 5))
            assert torch.allclose(product.double(), a.double() @ b.double(), atol=1e-5)


def test_the_floor_takes_the_fastest_library_for_each_product(stand_in: Path) -> None:
    a, b = torch.randn(4, 6), torch.randn(6, 5)
    factors = [(a, b), (torch.randn(6, 4).T, b), (a, torch.randn(5, 6).T), (a, b)]
    layouts = [shape_of(*pair)[3:] for pair in factors]
    assert layouts == [(False, False), (True, False), (False, True), (False, False)]
    optimized: list[int] = []
    products = SimpleNamespace(factors=factors, optimizer=lambda: optimized.append(1))
    with Peer(Path(sys.executable), stand_in) as peer:
        floor = Floor(products, peer, seconds=0.0)
        assert floor.time(0.0) > 0
    words = floor.note.replace(",", "").split()
    assert set(words[::2]) <= set(HERE)  # the stand-in for others takes 10 ms
    assert sum(map(int, words[1::2])) == len(factors)
    assert optimized
    assert len(floor.table().splitlines()) == 2 + 3  # two of the four have one shape


def test_rates_are_of_the_libraries_at_hand() -> None:
    assert set(rates(torch.randn(4, 6), torch.randn(6, 5), peer=None, seconds=0.0)) == set(HERE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "system", "peers"),
    [
        (step, "vae", {"numpyro", "numpyro_scan", "pythae", "floor"}),
        (importance, "mlp", {"numpyro", "pythae"}),
    ],
)
def test_the_peers_themselves_run(
    program: Any, system: str, peers: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for peer in _peers.REQUIREMENTS:
        try:
            interpreter(peer, _peers.cache())
        except SystemExit as error:
            pytest.skip(str(error))
    report = tmp_path / "report.json"
    options = ["--quick", "--peers", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", [program.__name__, *options])
    threads = torch.get_num_threads()
    try:
        program.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(report.read_text())[system]
    assert peers < set(found)
    for values in found.values():
        assert values["over_numpyro"]["q1"] <= values["over_numpyro"]["q3"]
    assert found["numpyro"]["over_numpyro"]["ratio"] == 1.0
