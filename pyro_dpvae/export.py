"""Export to ArviZ: samples, data and log likelihoods as one data tree."""

import inspect
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._plates import sample_sites
from pyro_dpvae.importance import check_latents, paired_traces
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["to_arviz"]


def to_arviz(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 500,
    **kwargs: Any,
) -> Any:
    """Return samples of z from guide and prior, the data and log p(x | z), for ArviZ.

    The groups are ``posterior`` (latent sites, sampled from the guide), ``prior`` (latent sites,
    sampled from the model), ``log_likelihood`` and ``observed_data`` (observed sites; factors are
    excluded, and masked data have a log likelihood of 0). All samples form one chain. The
    posterior is the guide's: weight it with :func:`pyro_dpvae.importance.log_weights` to get the
    model's.

    Args:
        model: p(x, z), a Pyro model; for the prior it is called with data too, and its
            observations are ignored.
        guide: q(z | x), a Pyro guide of the same arguments.
        args: arguments of both: data, of shape (batch, *data), and others, such as labels.
        num_samples: number of samples.
        kwargs: keyword arguments of both.

    Returns:
        An ``arviz.InferenceData``, or from ArviZ 1 on an ``xarray.DataTree``.

    Raises:
        ValueError: if ``num_samples`` is below 1, or model and guide have different latent sites.
    """
    arviz = _arviz()

    check_positive_int("num_samples", num_samples)
    draws: dict[str, dict[str, list[Tensor]]] = {
        group: defaultdict(list) for group in ("posterior", "prior", "log_likelihood")
    }
    observed: dict[str, Tensor] = {}
    with torch.no_grad(), in_evaluation(model, guide):
        for _ in range(num_samples):
            model_trace, guide_trace = paired_traces(model, guide, *args, **kwargs)
            check_latents(model_trace, guide_trace)
            model_trace.compute_log_prob()
            for site in _sites(model_trace):
                name = site["name"]
                if site["is_observed"]:
                    observed[name] = site["value"]
                    log_likelihood = scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])
                    draws["log_likelihood"][name].append(log_likelihood)
                else:
                    draws["posterior"][name].append(site["value"])
            for site in _sites(poutine.trace(model).get_trace(*args, **kwargs)):
                if not site["is_observed"]:
                    draws["prior"][site["name"]].append(site["value"])
    groups: dict[str, dict[str, Any]] = {
        group: {name: torch.stack(values)[None].cpu().numpy() for name, values in sites.items()}
        for group, sites in draws.items()
    }
    groups["observed_data"] = {
        name: value.detach().cpu().numpy() for name, value in observed.items()
    }
    if "data" in inspect.signature(arviz.from_dict).parameters:  # from ArviZ 1 on
        return arviz.from_dict(groups)
    return arviz.from_dict(**groups)


def _sites(trace: Trace) -> list[dict[str, Any]]:
    return [site for site in sample_sites(trace) if not isinstance(site["fn"], Unit)]  # factors


def _arviz() -> Any:
    """Import ArviZ, whose first import of a day warns about its next version.

    ArviZ 0.23 notes in its cache that it has warned, in all processes through one temporary file.
    If two processes import it at once, one of them finds that file gone, and tries again.
    """
    try:
        return import_module("arviz")
    except FileNotFoundError:
        return import_module("arviz")
