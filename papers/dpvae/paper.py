"""Table 1 of the decoupled prior's paper, as data."""

from typing import NamedTuple

__all__ = ["SOURCE", "TABLE_1", "PaperRow"]

SOURCE = "Bhalodia, Lee, Elhabian (2020), dpVAEs: Fixing Sample Generation for Regularized VAEs"


class PaperRow(NamedTuple):
    """The numbers that the paper prints for one model on one data set; lower is always better.

    Attributes:
        fid: FID of prior samples; the paper does not say how many.
        fid_low: FID of low-posterior samples, FID(LP).
        skl: symmetric KL divergence of prior and aggregate posterior, by nearest neighbours.
        nll: negative log-likelihood; the paper does not say in which unit.
    """

    fid: float
    fid_low: float
    skl: float
    nll: float


TABLE_1: dict[str, dict[str, dict[str, PaperRow]]] = {
    "mnist": {
        "vae": {
            "plain": PaperRow(137.4, 165.0, 1.26, 3.56),
            "dp": PaperRow(129.0, 153.1, 0.88, 3.53),
        },
        "beta-vae-h": {
            "plain": PaperRow(144.2, 163.1, 4.49, 4.12),
            "dp": PaperRow(127.1, 127.4, 1.07, 2.98),
        },
        "beta-vae-b": {
            "plain": PaperRow(130.8, 163.6, 2.74, 3.11),
            "dp": PaperRow(113.3, 114.1, 1.32, 2.80),
        },
        "beta-tcvae": {
            "plain": PaperRow(149.8, 200.3, 4.48, 2.91),
            "dp": PaperRow(133.3, 133.1, 2.07, 2.70),
        },
        "factor-vae": {
            "plain": PaperRow(130.5, 191.2, 1.04, 3.50),
            "dp": PaperRow(120.8, 121.3, 0.85, 3.60),
        },
        "info-vae": {
            "plain": PaperRow(128.7, 133.2, 2.89, 2.88),
            "dp": PaperRow(110.1, 110.5, 1.70, 2.81),
        },
    },
    "svhn": {
        "vae": {
            "plain": PaperRow(78.9, 83.8, 53.67, 0.386),
            "dp": PaperRow(50.8, 55.2, 13.02, 0.318),
        },
        "beta-vae-h": {
            "plain": PaperRow(96.7, 97.6, 10.35, 0.611),
            "dp": PaperRow(65.2, 67.7, 4.05, 0.592),
        },
        "beta-vae-b": {
            "plain": PaperRow(61.7, 68.5, 2.62, 0.606),
            "dp": PaperRow(51.1, 50.3, 2.47, 0.550),
        },
        "beta-tcvae": {
            "plain": PaperRow(69.2, 70.5, 7.76, 9.86),
            "dp": PaperRow(50.3, 53.8, 2.94, 4.52),
        },
        "factor-vae": {
            "plain": PaperRow(97.2, 108.5, 1.91, 2.13),
            "dp": PaperRow(86.3, 86.9, 1.57, 2.36),
        },
        "info-vae": {
            "plain": PaperRow(81.3, 83.2, 4.91, 1.55),
            "dp": PaperRow(62.9, 67.7, 2.67, 1.56),
        },
    },
    "celeba": {
        "vae": {
            "plain": PaperRow(81.4, 79.0, 59.3, 9.26),
            "dp": PaperRow(71.5, 74.3, 10.4, 4.91),
        },
        "beta-vae-h": {
            "plain": PaperRow(80.3, 79.9, 39.7, 6.93),
            "dp": PaperRow(67.2, 72.5, 33.5, 10.6),
        },
        "beta-vae-b": {
            "plain": PaperRow(75.7, 79.6, 25.8, 12.5),
            "dp": PaperRow(67.9, 72.0, 19.1, 10.4),
        },
        "beta-tcvae": {
            "plain": PaperRow(83.8, 83.0, 93.6, 9.33),
            "dp": PaperRow(80.3, 81.4, 90.3, 10.0),
        },
        "factor-vae": {
            "plain": PaperRow(82.6, 86.8, 71.3, 9.89),
            "dp": PaperRow(65.0, 73.4, 51.3, 12.2),
        },
        "info-vae": {
            "plain": PaperRow(76.5, 79.1, 30.6, 11.1),
            "dp": PaperRow(68.9, 72.9, 20.3, 12.1),
        },
    },
}
"""Data set, regularizer, then ``plain`` or ``dp`` (the same with the decoupled prior)."""
