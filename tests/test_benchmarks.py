"""The benchmark programs run, and their variants train alike; times are no matter of tests."""

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from benchmarks import (
    coupling,
    guides,
    importance,
    mixture,
    scale,
    soak,
    startup,
    step,
)
from benchmarks._alternate import ratios
from tests.children import end_of, fork, wait_for
from tests.waiting import TIME_LIMIT


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the main function of a program, in this process, and return what it writes."""
    path = tmp_path / "report.json"
    threads = torch.get_num_threads()

    def run(main: Callable[[], None], *options: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [main.__module__, "--json", str(path), *options])
        try:
            main()
        finally:
            torch.set_num_threads(threads)
        return json.loads(path.read_text())

    return run


def test_ratios_are_of_the_same_round() -> None:
    calls: list[str] = []
    found = ratios(
        {"one": lambda: calls.append("one"), "other": lambda: calls.append("other")},
        base="one",
        rounds=5,
        seconds=0.0,
    )
    assert calls.count("one") == calls.count("other") == 6
    assert found["one"]["ratio"] == 1.0
    assert found["other"]["q1"] <= found["other"]["ratio"] <= found["other"]["q3"]


def test_the_step_benchmark_runs(
    program: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # conv64 is conv28 with more layers.
    systems = {name: step.SYSTEMS[name] for name in ("mlp", "conv28", "tc")}
    monkeypatch.setattr(step, "SYSTEMS", systems)
    monkeypatch.setattr(step, "DATA", 600)
    report = program(step.main, "--quick")
    for system in ("mlp", "conv28"):
        stock = {"stock", "stock_fused"}
        assert set(report[system]) == {"bare", "eager", "fx", "fx_bfloat16", "products"} | stock
        assert report[system]["bare"]["ratio"] == 1.0
    assert set(report["tc"]) == {"bare", "eager", "fx", "fx_bfloat16", "products"}
    optimizers = {"torch_fused", "fused_optim", "pyro", "flat", "flat_gathered"}
    assert set(report["optimizer"]) == optimizers
    assert set(report["data"]) == {"bare", "grey", "binary-static", "binary-dynamic"}


def test_the_coupling_benchmark_runs(program: Callable[..., dict[str, Any]]) -> None:
    report = program(coupling.main, "--quick")
    assert set(report) == {"hardware", "torch", "gradient", "density", "sample"}
    for case in ("gradient", "density", "sample"):
        assert set(report[case]) == {"pyro", "stack"}
        assert report[case]["pyro"]["ratio"] == 1.0


def test_the_importance_benchmark_runs(program: Callable[..., dict[str, Any]]) -> None:
    report = program(importance.main, "--quick")
    found = {"mlp", "gemm_peak_gflops", "products_microseconds", "rss_mb"}
    assert set(report) == {"hardware", "torch", *found}
    assert {"pyro", "pyro_chunked", "eager", "bare"} <= set(report["mlp"])
    for found in report["mlp"].values():
        assert {"ratio", "q1", "q3", "milliseconds"} <= set(found)
        assert 0 < found["gemm_fraction"] < 1
        assert found["samples_per_second"] > 0
    assert report["mlp"]["pyro"]["ratio"] == 1.0


def test_the_mixture_benchmark_runs(program: Callable[..., dict[str, Any]]) -> None:
    report = program(mixture.main, "--quick")
    assert set(report) == {"hardware", "torch", "components", "scaled", "mixture"}
    assert set(report["mixture"]) == {"float64", "float32", "gemm", "broadcast"}
    assert report["mixture"]["float64"]["ratio"] == 1.0
    assert report["mixture"]["float64"]["error"] <= 1e-6


def test_the_startup_benchmark_runs(
    program: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (startup.BASE, "import pyro_dpvae", "dpvae --version")
    monkeypatch.setattr(startup, "PROGRAMS", {name: startup.PROGRAMS[name] for name in few})
    found = program(startup.main, "--quick")["startup"]
    assert set(found) == set(few)
    assert found[startup.BASE]["ratio"] == 1.0
    assert all(one["milliseconds"] > 0 for one in found.values())


def test_the_guides_benchmark_runs(
    program: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_couplings = {"name": "coupling", "blocks": 1, "hidden": (8,)}
    small = {"network": {"name": "mlp", "hidden": (50, 50)}, "latent_dim": 16}
    cases = {
        "bernoulli": ("bernoulli", {"name": "standard"}, small, 4),
        "gaussian-dp": ("gaussian-learned", few_couplings, small, 4),
    }
    monkeypatch.setattr(guides, "CASES", cases)
    report = program(guides.main, "--quick")
    for case in cases:
        assert set(report[case]) == {"amortized", "Laplace, T=1"}
        assert report[case]["amortized"]["floor"] == 1.0
        assert report[case]["Laplace, T=1"]["floor"] > 1.0


def test_the_plan_of_a_run_is_from_what_its_step_sends_and_computes() -> None:
    assert scale.sent("svhn", "elbo")["bytes_per_datum"] == pytest.approx(8, abs=1)
    tc = scale.sent("svhn", "beta-tc")["bytes_per_datum"]  # z, and q's means and deviations
    assert tc == pytest.approx(8 + 3 * 32 * 4, abs=20)
    found = {
        "gigaflops_per_datum": 1.0,
        "kernels": 0,
        "parameters": 25_000_000,
        "sent_elbo": {"messages": 0, "bytes_per_datum": 0.0},
    }
    computing = 100 * 1e9 / scale.ASSUMED["flops"]
    assert scale.planned(found, ranks=1, batch=100) == pytest.approx(computing)
    sending = 1e8 / scale.ASSUMED["bandwidth"] + scale.ASSUMED["message"]
    assert scale.planned(found, ranks=2, batch=100) == pytest.approx(computing / 2 + sending)


def test_a_child_killed_while_it_draws_a_bar_stops_no_other_bar(tmp_path: Path) -> None:
    drawing = tmp_path / "drawing"

    def work() -> None:
        tqdm.get_lock().acquire()
        drawing.touch()
        signal.pause()

    bar = tqdm(total=1, file=io.StringIO())
    child = fork(work)
    wait_for(drawing.exists, child)
    os.kill(child, signal.SIGKILL)
    assert end_of(child) == -signal.SIGKILL
    refreshing = threading.Thread(target=bar.refresh, daemon=True)
    refreshing.start()
    refreshing.join(TIME_LIMIT)
    assert not refreshing.is_alive()
    bar.close()


def test_a_soak_kills_compares_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, compare = "beta, couplings", soak.differences
    found: list[list[str]] = []

    def compared(*runs: Path) -> list[str]:
        # beartype, which checks annotations in these tests, draws by Python's generator.
        found.append([problem for problem in compare(*runs) if ".python." not in problem])
        (runs[1] / "metrics.jsonl").write_text("{}\n")
        return compare(*runs)

    monkeypatch.setattr(soak, "differences", compared)
    arguments = ["soak", "--out", str(tmp_path), "--data", "two-moons", "--steps", "100"]
    arguments += ["--interval", "0.2", "--backend", "eager", "--systems", name]
    monkeypatch.setattr(sys, "argv", [*arguments, "--minutes", "0.01"])
    assert soak.main() == 1
    assert found == [[]]  # the runs agreed, until one was changed
    kept = json.loads((tmp_path / "soak.json").read_text())
    tally = kept["tallies"][name]
    assert tally["configurations"] == 1
    assert tally["kills"] >= 1
    assert "killed: records differ at 0" in tally["failures"][0]
    assert f"| {name} | 1 | {tally['kills']} |" in capsys.readouterr().out
    assert (tmp_path / "0000" / "killed" / "config.json").exists()  # to be looked into
    assert soak.main() == 1  # the time is over
    assert json.loads((tmp_path / "soak.json").read_text())["place"] == 1
