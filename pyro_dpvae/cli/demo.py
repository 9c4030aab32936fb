"""``dpvae demo``: a beta-VAE and a beta-dpVAE on two moons, side by side."""

from pathlib import Path

from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import make_folder
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.plots import moons_figure
from pyro_dpvae.recipes import MoonsResult, measure_moons, train_moons

__all__ = ["main"]

_SYSTEMS = {"beta-VAE": "standard", "beta-dpVAE": "coupling"}


def main(options: Namespace) -> int:
    """Train both systems, draw the picture, print the table; returns the exit status."""
    check_positive_int("steps", options.steps)
    check_seed(options.seed)
    picture = Path(options.out) / "two-moons.png"
    make_folder(picture.parent)
    results = {}
    for title, prior in _SYSTEMS.items():
        print(f"{title}, beta {options.beta:g}, {options.steps} steps on two moons", flush=True)
        system, data = train_moons(
            prior, beta=options.beta, steps=options.steps, seed=options.seed
        )
        results[title] = measure_moons(system, data, seed=options.seed)
    save_figure(moons_figure(results), picture)
    print(_table(results))
    print(f"picture: {picture}")
    return 0


def _table(results: dict[str, MoonsResult]) -> str:
    header = f"{'':12}{'symmetric KL':>20}{'distance, prior':>22}{'distance, low-post.':>22}"
    lines = [
        f"{title:12}{result.symmetric_kl!s:>20}"
        f"{result.prior_distance!s:>22}{result.low_distance!s:>22}"
        for title, result in results.items()
    ]
    note = (
        "symmetric KL: prior against aggregate posterior, in nats; distance: of decoded prior\n"
        "and low-posterior samples to the nearest datum, in its units (+- standard errors)"
    )
    return "\n".join(["", header, *lines, "", note])
