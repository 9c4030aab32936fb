"""``dpvae demo``: a beta-VAE and a beta-dpVAE on two moons, side by side."""

from pathlib import Path

from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import make_folder
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.evaluation.table import text_table
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
    rows = [["", "symmetric KL", "distance, prior", "distance, low-post."]]
    for title, one in results.items():
        rows.append([title, *map(str, (one.symmetric_kl, one.prior_distance, one.low_distance))])
    note = (
        "symmetric KL: prior against aggregate posterior, in nats; distance: of decoded prior\n"
        "and low-posterior samples to the nearest datum, in its units (+- standard errors)"
    )
    return "\n".join(["", text_table(rows), "", note])
