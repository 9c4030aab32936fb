"""Diagnosis of a step that is not finite: by sites, terms of the loss, and gradients."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_dpvae._randomness import forked_rng, set_noise_state
from pyro_dpvae._ranks import gather_objects
from pyro_dpvae.inference import CapturedSVI

__all__ = ["Diagnosis", "Sites", "diagnose", "extreme_rows", "ignores_latents"]

_NEAR_ZERO = 0.5  # nats per datum: less than needed to tell two kinds of items apart
_EXTREME = 1e3  # times the median: an item that no scaling of the data explains


@dataclass(frozen=True)
class Diagnosis:
    """The values of a training step that are not finite.

    Attributes:
        terms: all terms of the objective, per datum, in nats, including ``loss``.
        sites: the sites with values or densities that are not finite, guide before model.
        parameters: the parameters with gradients that are not finite.
        error: the error that stopped the evaluation, if any.
    """

    terms: dict[str, float] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def bad_terms(self) -> list[str]:
        """Names of the terms that are not finite; ``loss`` only if it is the only one."""
        bad = [name for name, value in self.terms.items() if not math.isfinite(value)]
        return [name for name in bad if name != "loss"] or bad

    def __str__(self) -> str:
        found = []
        if self.error is not None:
            found.append(self.error)
        if self.bad_terms:
            values = [f"{name} is {self.terms[name]}" for name in self.bad_terms]
            found.append(f"terms that are not finite: {', '.join(values)}")
        if self.sites:
            found.append(f"the first site is {self.sites[0]}")
        if self.parameters:
            more = len(self.parameters) - 3
            rest = f" and {more} more" if more > 0 else ""
            found.append(f"gradients are not finite for {', '.join(self.parameters[:3])}{rest}")
        if not found:
            return "an eager evaluation of the same batch and noise is finite"
        return "; ".join(found)


def ignores_latents(terms: Mapping[str, float]) -> bool:
    """Return True at a posterior collapse, where z carries almost no information on x.

    Args:
        terms: the terms of an evaluation, per datum, in nats; only ``rate`` is used.

    References:
        Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio (2016), Generating sentences from a
        continuous space, section 3.1.

    Example:
        >>> ignores_latents({"rate": 0.02, "distortion": 31.0})
        True
    """
    return terms["rate"] < _NEAR_ZERO


def diagnose(svi: CapturedSVI, args: tuple[Tensor, ...], *, state: list[Tensor]) -> Diagnosis:
    """Evaluate a training step again, eagerly, and find the values that are not finite.

    Buffers of modules may change; random states are restored, gradients are empty at the end. All
    ranks must call it, and each receives the sites of all ranks.

    Args:
        svi: takes the steps of model and guide.
        args: the batch, and tensors that belong to it, such as labels.
        state: the random state before the step, from ``noise_state``.
    """
    sites = Sites()
    terms: dict[str, Tensor] = {}
    error = None
    try:
        with forked_rng(), pyro.validation_enabled(False), torch.enable_grad(), sites:
            set_noise_state(state)
            loss, terms = svi.objective.evaluate(svi.model, svi.guide, *args)
            loss.backward()
    except (ValueError, RuntimeError) as failure:  # LinAlgError is a RuntimeError
        error = str(failure).splitlines()[0][:200]
    parameters = []
    owned = [parameter for part in svi.objective.parts() for parameter in part.parameters()]
    named = {
        parameter: f"{root}.{name}"
        for root, module in (("model", svi.model), ("guide", svi.guide))
        for name, parameter in module.named_parameters()
    }
    for parameter, name in named.items():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            parameters.append(name)
    for parameter in (*named, *owned):
        parameter.grad = None
    everyone = gather_objects((sites.found(), parameters))
    all_sites, all_parameters = (
        list(dict.fromkeys(name for own in kind for name in own))
        for kind in zip(*everyone, strict=True)
    )
    found = {name: float(term) for name, term in terms.items()}
    return Diagnosis(found, all_sites, all_parameters, error)


def extreme_rows(x: Tensor) -> list[int]:
    """Return the rows of a batch that are not finite or a thousand times the median size.

    Args:
        x: a batch of shape (batch, ...).

    Example:
        >>> extreme_rows(torch.tensor([[1.0], [2.0], [torch.nan], [-1e9]]))
        [2, 3]
    """
    sizes = x.detach().reshape(len(x), -1).double().abs().amax(1)
    finite = sizes.isfinite()
    usual = sizes[finite].median() if bool(finite.any()) else sizes.new_tensor(0.0)
    apart = ~finite | ((sizes > _EXTREME * usual) & (usual > 0))
    return [int(row) for row in apart.nonzero()[:, 0]]


@final
class Sites(Messenger):
    """Record the sample sites of all programs that run inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self._sites: list[tuple[str, Any, Tensor]] = []

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(msg["value"], Tensor) and msg["infer"].get("_do_not_trace") is None:
            self._sites.append((msg["name"], msg["fn"], msg["value"]))

    def found(self) -> list[str]:
        """Return a description of each site that is not finite."""
        bad = []
        for name, fn, value in self._sites:
            with torch.no_grad(), pyro.validation_enabled(False):
                if not bool(value.isfinite().all()):
                    bad.append(f"{name!r}, whose value is not finite")
                elif not bool(fn.log_prob(value).isfinite().all()):
                    bad.append(f"{name!r}, whose log density is not finite")
        return list(dict.fromkeys(bad))
