"""The mixture of diagonal normals against torch's own mixture, and gradients of exact means."""

from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recording.graph import record


@pytest.fixture(autouse=True)
def seeded() -> None:
    pyro.set_rng_seed(0)


def parameters(
    *batch: int, components: int = 3, latent: int = 2, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    logits = torch.randn(*batch, components, dtype=dtype)
    loc = 0.8 * torch.randn(*batch, components, latent, dtype=dtype)
    scale = 0.5 + torch.rand(*batch, components, latent, dtype=dtype)
    return [one.requires_grad_() for one in (logits, loc, scale)]


def oracle(logits: Tensor, loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 64)])
def test_densities_and_moments_are_those_of_torchs_mixture(shape: tuple[int, int]) -> None:
    q = parameters(5, components=shape[0], latent=shape[1])
    mixture, exact = DiagonalNormalMixture(*q), oracle(*q)
    for z in (
        mixture.sample(),
        torch.randn(7, 1, shape[1]).double(),
        torch.zeros(shape[1]).double(),
    ):
        torch.testing.assert_close(mixture.log_prob(z), exact.log_prob(z))
    torch.testing.assert_close(mixture.mean, exact.mean)
    torch.testing.assert_close(mixture.variance, exact.variance)
    diagonal = mixture.covariance_matrix.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal, exact.variance)


def test_draws_have_the_covariance_and_the_weights() -> None:
    q = parameters()
    mixture = DiagonalNormalMixture(*q)
    z = mixture.sample((400_000,))
    torch.testing.assert_close(z.mean(0), mixture.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(z.T.cov(), mixture.covariance_matrix, rtol=0, atol=0.02)
    apart = DiagonalNormalMixture(q[0], 100 * torch.arange(3.0)[:, None], torch.ones(3, 1))
    nearest = (apart.sample((100_000,)) / 100).round().long().flatten()
    shares = nearest.bincount(minlength=3) / 100_000
    torch.testing.assert_close(shares, q[0].softmax(-1).float(), rtol=0, atol=0.01)


MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "z_1": lambda z: z[..., 0],
    "z_3": lambda z: z[..., 2],
    "z_1^2": lambda z: z[..., 0].square(),
    "z_3^2": lambda z: z[..., 2].square(),
    "z_1 z_2": lambda z: z[..., 0] * z[..., 1],
    "z_2 z_3": lambda z: z[..., 1] * z[..., 2],
}


def exact_mean(mixture: DiagonalNormalMixture, name: str) -> Tensor:
    second = mixture.covariance_matrix + mixture.mean[:, None] * mixture.mean
    digits = [int(digit) - 1 for digit in name if digit.isdigit()]
    if name.endswith("^2"):
        return second[digits[0], digits[0]]
    return mixture.mean[digits[0]] if len(digits) == 1 else second[digits[0], digits[1]]


@pytest.mark.parametrize("name", MEANS)
def test_gradients_of_means_are_exact_within_monte_carlo_error(name: str) -> None:
    q = parameters(latent=3)
    copies = 40
    expanded = [one.detach().expand(copies, *one.shape).clone().requires_grad_() for one in q]
    z = DiagonalNormalMixture(*expanded).rsample((5000,))
    found = torch.autograd.grad(MEANS[name](z).mean(0).sum(), expanded)
    exact = torch.autograd.grad(
        exact_mean(DiagonalNormalMixture(*q), name), q, allow_unused=True, materialize_grads=True
    )
    for one, truth in zip(found, exact, strict=True):
        error = one.std(0) / copies**0.5
        assert bool(((one.mean(0) - truth).abs() <= 4.5 * error + 1e-9).all())
        assert float(error.max()) < 0.02  # the comparison says something


def test_displacements_solve_the_implicit_equation() -> None:
    # dz = -(dS/dz)^-1 dS/dtheta with the Jacobians of S by autograd
    logits, loc, scale = (one.detach() for one in parameters(latent=4))

    def distribution_function(z: Tensor, *q: Tensor) -> Tensor:
        logits, loc, scale = q
        densities = Normal(loc, scale).log_prob(z).unbind(-1)
        log_weights, values = logits, []
        for i, density in enumerate(densities):
            cumulative = Normal(loc[:, i], scale[:, i]).cdf(z[i])
            values.append((log_weights.softmax(-1) * cumulative).sum())
            log_weights = log_weights + density
        return torch.stack(values)

    q = [one.clone().requires_grad_() for one in (logits, loc, scale)]
    pyro.set_rng_seed(3)
    drawn = DiagonalNormalMixture(*q).rsample()
    pyro.set_rng_seed(3)
    assert torch.equal(drawn, DiagonalNormalMixture(*q).sample())
    jacobians = torch.autograd.functional.jacobian(
        distribution_function, (drawn.detach(), logits, loc, scale)
    )
    for i in range(4):
        gradients = torch.autograd.grad(drawn[i], q, retain_graph=True)
        for gradient, of_parameter in zip(gradients, jacobians[1:], strict=True):
            solved = -torch.linalg.solve(jacobians[0], of_parameter.flatten(1))
            torch.testing.assert_close(gradient, solved[i].reshape(gradient.shape))


def test_one_component_is_the_plain_reparameterisation() -> None:
    logits, loc, scale = parameters(6, components=1, latent=5, dtype=torch.float32)
    z = DiagonalNormalMixture(logits, loc, scale).rsample()
    slope = torch.randn_like(z)
    of_logits, of_loc, of_scale = torch.autograd.grad((slope * z).sum(), [logits, loc, scale])
    noise = ((z.unsqueeze(-2) - loc) / scale).detach()
    assert torch.equal(of_loc, slope.unsqueeze(-2))
    assert torch.equal(of_scale, slope.unsqueeze(-2) * noise)
    assert torch.equal(of_logits, torch.zeros_like(logits))


@pytest.mark.parametrize("spread", [0.01, 0.1, 5.0])
def test_gradients_are_finite_and_precise_in_many_dimensions(spread: float) -> None:
    logits = torch.randn(128, 4)
    loc, scale = spread * torch.randn(128, 4, 64), torch.full((128, 4, 64), 0.01)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        q = [one.to(dtype).requires_grad_() for one in (logits, loc, scale)]
        mixture = DiagonalNormalMixture(*q)
        pyro.set_rng_seed(0)
        drawn = DiagonalNormalMixture(logits, loc, scale).sample().to(dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mixture, "sample", lambda shape, drawn=drawn: drawn)
            z = mixture.rsample()
        gradients.append(torch.autograd.grad(z.square().sum(), q))
        assert bool(mixture.log_prob(z).isfinite().all())
    for single, double in zip(*gradients, strict=True):
        assert bool(single.isfinite().all())
        size = float(double.square().mean().sqrt())
        assert float((single - double).square().mean().sqrt()) < 1e-2 * size


def test_autocast_changes_no_gradient() -> None:
    q = parameters(8, latent=6, dtype=torch.float32)
    gradients = []
    for enabled in (False, True):
        pyro.set_rng_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            z = DiagonalNormalMixture(*q).rsample()
        gradients.append(torch.autograd.grad(z.square().sum(), q))
    for plain, cast in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, cast)


def test_draws_and_their_gradients_are_recorded() -> None:
    q = parameters(8, dtype=torch.float32)

    def gradients(inputs: list[Tensor]) -> list[Tensor]:
        z = DiagonalNormalMixture(*q).rsample((2,))
        return [z.detach(), *torch.autograd.grad((inputs[0] * z).sum(), q)]

    recording = record(gradients, [torch.tensor(1.0)])
    for seed in (1, 2):
        pyro.set_rng_seed(seed)
        expected = gradients([torch.tensor(3.0)])
        pyro.set_rng_seed(seed)
        for one, other in zip(recording([torch.tensor(3.0)]), expected, strict=True):
            torch.testing.assert_close(one, other)


def test_a_mixture_guide_is_trained_by_recorded_steps() -> None:
    # p(z | x) is bimodal for x = z_1^2 + noise; one component cannot reach it, two can.
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z.square(), 0.8).to_event(1), obs=x)

    x = torch.full((64, 1), 1.5)
    bounds = []
    for components in (1, 2):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)

        def guide(x: Tensor, components: int = components) -> None:
            loc = pyro.param("loc", lambda: torch.linspace(-0.5, 0.5, components)[:, None])
            raw = pyro.param("raw", lambda: torch.full((components, 1), -0.7))
            logits = pyro.param("logits", lambda: torch.zeros(components))
            q = DiagonalNormalMixture(logits, loc, raw.exp())
            with pyro.plate("data", len(x)):
                pyro.sample("z", q)

        svi = CapturedSVI(model, guide, FusedOptim({"lr": 2e-2}), RegularizedELBO())
        losses = [svi.step(x) / len(x) for _ in range(300)]
        assert svi.recordings == 1
        bounds.append(-sum(losses[-50:]) / 50)
    points = torch.linspace(-8, 8, 4001)
    likelihood = Normal(points.square(), 0.8).log_prob(torch.tensor(1.5))
    joint = Normal(0, 1).log_prob(points) + likelihood
    evidence = float(joint.logsumexp(0) + (points[1] - points[0]).log())
    assert evidence - 0.12 < bounds[1] < evidence + 0.02
    assert bounds[0] < evidence - 0.3


def test_it_expands_and_reshapes_in_a_plate() -> None:
    q = [one.detach() for one in parameters()]
    wide = DiagonalNormalMixture(*q).expand((5,))
    assert wide.rsample((3,)).shape == (3, 5, 2)
    z = torch.randn(5, 2).double()
    torch.testing.assert_close(wide.log_prob(z), oracle(*q).log_prob(z))


@pytest.mark.parametrize(
    "shapes", [((3,), (3, 2), (2, 3)), ((2,), (3, 2), (3, 2)), ((), (3,), (3,))]
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"needs logits of shape \(\*batch, K\)"):
        DiagonalNormalMixture(*(torch.ones(shape) for shape in shapes))


def test_bad_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        DiagonalNormalMixture(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1))
