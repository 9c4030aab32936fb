"""Variational autoencoders in Pyro that represent and generate.

The public names are the parts of a system. What is not here has its module:
``pyro_dpvae.nn``, ``pyro_dpvae.likelihoods``, ``pyro_dpvae.objectives`` (rates, penalties,
schedules), ``pyro_dpvae.inference`` (recorded steps, several processes), ``pyro_dpvae.metrics``,
``pyro_dpvae.data``, ``pyro_dpvae.training``, ``pyro_dpvae.recipes``, ``pyro_dpvae.plots``.
Names and modules are imported when they are first used: the command line starts without PyTorch.
"""

from typing import TYPE_CHECKING

from pyro_dpvae._lazy import lazily

if TYPE_CHECKING:
    from pyro_dpvae._version import __version__ as __version__
    from pyro_dpvae.decoders import AutoregressiveDecoder, Decoder
    from pyro_dpvae.encoders import ClusteringEncoder, GaussianEncoder, WeightedGaussianEncoder
    from pyro_dpvae.errors import (
        CheckpointError,
        ConfigError,
        ConfigWarning,
        DataError,
        DataWarning,
        DpvaeError,
        DpvaeWarning,
        EagerWarning,
        EvaluationWarning,
        MissingDataError,
        ReaderError,
        TrainingWarning,
        UnsupportedError,
    )
    from pyro_dpvae.guides import (
        AmortizedGaussian,
        ClusteringLadderGuide,
        FlowGuide,
        LadderGuide,
        LaplaceGuide,
        RecursiveMixtureGuide,
        SemiAmortizedGuide,
    )
    from pyro_dpvae.mixture import AggregatePosterior
    from pyro_dpvae.models import VAE, ClusteringLadderVAE, LadderVAE, LossyVAE
    from pyro_dpvae.objectives import (
        DIPELBO,
        BetaELBO,
        BetaTCELBO,
        CapacityELBO,
        FactorELBO,
        InfoELBO,
        MutualDivergenceELBO,
        RegularizedELBO,
    )
    from pyro_dpvae.priors import (
        AutoregressivePrior,
        CouplingPrior,
        MixturePrior,
        ProductPrior,
        ResampledPrior,
        StandardNormal,
        VampPrior,
        ZukoPrior,
    )
    from pyro_dpvae.recipes import Run, RunConfig, open_run, train

__all__ = [
    "DIPELBO",
    "VAE",
    "AggregatePosterior",
    "AmortizedGaussian",
    "AutoregressiveDecoder",
    "AutoregressivePrior",
    "BetaELBO",
    "BetaTCELBO",
    "CapacityELBO",
    "CheckpointError",
    "ClusteringEncoder",
    "ClusteringLadderGuide",
    "ClusteringLadderVAE",
    "ConfigError",
    "ConfigWarning",
    "CouplingPrior",
    "DataError",
    "DataWarning",
    "Decoder",
    "DpvaeError",
    "DpvaeWarning",
    "EagerWarning",
    "EvaluationWarning",
    "FactorELBO",
    "FlowGuide",
    "GaussianEncoder",
    "InfoELBO",
    "LadderGuide",
    "LadderVAE",
    "LaplaceGuide",
    "LossyVAE",
    "MissingDataError",
    "MixturePrior",
    "MutualDivergenceELBO",
    "ProductPrior",
    "ReaderError",
    "RecursiveMixtureGuide",
    "RegularizedELBO",
    "ResampledPrior",
    "Run",
    "RunConfig",
    "SemiAmortizedGuide",
    "StandardNormal",
    "TrainingWarning",
    "UnsupportedError",
    "VampPrior",
    "WeightedGaussianEncoder",
    "ZukoPrior",
    "open_run",
    "train",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        [*__all__, "__version__"],
        modules=[
            *(
                "_version",
                "decoders",
                "encoders",
                "errors",
                "guides",
                "mixture",
                "models",
                "objectives",
            ),
            *("priors", "recipes", "data", "distributions", "evaluation", "export", "features"),
            *("importance", "inference", "likelihoods", "metrics", "nn", "plots"),
            *("runs", "training"),
        ],
    )
