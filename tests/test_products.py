"""A recorded graph's matrix products by oneDNN, where it is faster than PyTorch."""

import json
from collections.abc import Callable
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.recipes import build_system
from pyro_dpvae.recording import products
from pyro_dpvae.recording.graph import Recording, record

WIDTH = 128  # products of 64 x 128 x 128 multiplications are large enough to choose

pytestmark = pytest.mark.skipif(products.ONEDNN is None, reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder; nothing is known of earlier measurements."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(products, "_choices", products._choices.__wrapped__)
    return tmp_path / "pyro-dpvae"


def take(monkeypatch: pytest.MonkeyPatch, *, times: dict[str, float]) -> list[int]:
    """Let PyTorch's products and oneDNN's take these times; returns a list of measurements."""
    made: list[int] = []

    def seconds(multiply: Callable[[], Tensor]) -> float:
        made.append(1)
        return times["PyTorch" if "mm" in multiply.__code__.co_names else "oneDNN"]

    monkeypatch.setattr(products, "_seconds", seconds)
    return made


FAST, SLOW = {"PyTorch": 2.0, "oneDNN": 1.0}, {"PyTorch": 1.0, "oneDNN": 0.9}


def by_onednn(recording: Recording) -> int:
    return sum(node.target is products.ONEDNN for node in recording.graph.graph.nodes)


def recorded() -> tuple[Recording, nn.Linear, Callable[[Tensor], list[Tensor]]]:
    """A linear layer with its gradients: products with a bias, and of transposed factors."""
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH)

    def function(x: Tensor) -> list[Tensor]:
        y = layer(x.requires_grad_()).square().sum()
        return [y.detach(), *torch.autograd.grad(y, [x, layer.weight, layer.bias])]

    x = torch.randn(64, WIDTH)
    return record(lambda tensors: function(tensors[0]), [x]), layer, function


def test_the_faster_library_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)
    recording, layer, function = recorded()
    assert by_onednn(recording) == 3
    assert not recording.exact
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
        x = torch.randn(64, WIDTH)
        for found, expected in zip(recording([x]), function(x.clone()), strict=True):
            assert found.stride() == expected.stride()
            assert float((found - expected).norm()) <= 1e-6 * float(expected.norm())


def test_where_no_library_is_clearly_faster_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take(monkeypatch, times=SLOW)
    recording, _, function = recorded()
    assert by_onednn(recording) == 0
    assert recording.exact
    x = torch.randn(64, WIDTH)
    assert all(map(torch.equal, recording([x]), function(x.clone())))


def test_a_product_of_lower_precision_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)

    def rounded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return (x.bfloat16() @ weight.bfloat16().t()).float()

    monkeypatch.setattr(products, "_onednn_linear", rounded)
    assert by_onednn(recorded()[0]) == 0


def test_of_other_precisions_and_sizes_all_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made = take(monkeypatch, times=FAST)
    for x, y in (
        (torch.randn(64, 128).double(), torch.randn(128, 64).double()),
        (torch.randn(64, 128).bfloat16(), torch.randn(128, 64).bfloat16()),
        (torch.randn(16, 32), torch.randn(32, 16)),
    ):
        assert by_onednn(record(lambda tensors: [tensors[0] @ tensors[1]], [x, y])) == 0
    assert not made
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert by_onednn(recorded()[0]) == 0
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_bias_that_is_broadcast_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)
    x, y = torch.randn(64, 128), torch.randn(128, 64)
    for bias, count in ((torch.randn(64), 1), (torch.randn(1), 0), (torch.randn(64, 64), 0)):
        recording = record(lambda tensors: [torch.addmm(*tensors)], [bias, x, y])
        assert by_onednn(recording) == count
        torch.testing.assert_close(recording([bias, x, y]), [torch.addmm(bias, x, y)])


def test_factors_of_any_layout_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)
    x, y = torch.randn(64, 128), torch.randn(128, 64)
    for a in (x, torch.randn(128, 64).t(), torch.randn(128, 256)[::2, ::2], x[:1].expand(64, -1)):
        for b in (y, torch.randn(64, 128).t(), y[:, :1].expand(-1, 64)):
            recording = record(lambda tensors: [tensors[0] @ tensors[1]], [a, b])
            torch.testing.assert_close(recording([a, b]), [a @ b], rtol=1e-4, atol=1e-4)


def test_measuring_leaves_the_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    x, y = torch.ones(64, 128), torch.ones(128, 64)
    record(lambda tensors: [tensors[0] @ tensors[1]], [x, y])
    assert torch.equal(torch.get_rng_state(), state)


def test_factors_are_measured_with_their_strides() -> None:
    for x in (torch.randn(6, 4), torch.randn(4, 6).t(), torch.randn(1, 4).expand(6, 4)):
        like = products._like(products.layout_of(x))
        assert (like.shape, like.stride(), like.dtype) == (x.shape, x.stride(), x.dtype)


def test_choices_are_kept_by_processor_version_and_threads(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    made = take(monkeypatch, times=FAST)
    recorded()
    measured = len(made)
    assert measured > 0
    recorded()
    assert len(made) == measured
    (path,) = folder.iterdir()
    ((here, choices),) = json.loads(path.read_text()).items()
    assert torch.__version__ in here
    assert f"{torch.get_num_threads()} threads" in here
    assert set(choices.values()) == {True}
    path.write_text(json.dumps({here: dict.fromkeys(choices, False), "another": {"kept": True}}))
    assert by_onednn(recorded()[0]) == 0  # what stands there is taken
    assert len(made) == measured
    x = torch.randn(64, 256)
    record(lambda tensors: [tensors[0] @ tensors[0].t()], [x])  # one more product
    written = json.loads(path.read_text())
    assert written["another"] == {"kept": True}
    assert len(written[here]) == len(choices) + 1


@pytest.mark.parametrize("content", ["", "[1", "[]", '{"a": 1}', "null"])
def test_a_damaged_file_of_choices_is_written_anew(
    monkeypatch: pytest.MonkeyPatch, folder: Path, content: str
) -> None:
    take(monkeypatch, times=FAST)
    folder.mkdir()
    (folder / "products.json").write_text(content)
    assert by_onednn(recorded()[0]) == 3
    assert set(json.loads((folder / "products.json").read_text()).popitem()[1].values()) == {True}


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    take(monkeypatch, times=FAST)
    folder.write_text("a file in its place")
    assert by_onednn(recorded()[0]) == 3


def test_training_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)
    losses = []
    for kind in (SVI, CapturedSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        system = build_system(
            (1, 16, 16),
            latent_dim=8,
            dataset_size=100,
            prior={"name": "coupling"},
            likelihood={"name": "bernoulli"},
            network={"name": "mlp", "hidden": (WIDTH, WIDTH)},
            guide={"name": "amortized"},
            objective={"name": "elbo"},
        )
        svi = kind(system.model, system.guide, FusedOptim({"lr": 1e-3}), system.objective)
        x = torch.rand(64, 1, 16, 16).round()
        losses.append([svi.step(x) for _ in range(20)])  # the check of a replay warns
    (step,) = svi._recordings
    assert by_onednn(step.recording) > 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.usefixtures("inductor")
def test_a_compiled_graph_keeps_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, times=FAST)
    recording, layer, function = recorded()
    x = torch.randn(64, WIDTH)
    assert recording.compile([x], check=lambda: None) is None
    with torch.no_grad():
        layer.weight.normal_()
        with torch.profiler.profile() as profile:
            found = recording([x])
    called = {event.key: event.count for event in profile.key_averages()}
    assert called["mkldnn::_linear_pointwise"] == 3
    assert "aten::mm" not in called
    assert "aten::addmm" not in called
    for one, expected in zip(found, function(x.clone()), strict=True):
        assert float((one - expected).norm()) <= 1e-5 * float(expected.norm())
    assert by_onednn(recording) == 3
