"""The figures of the dpVAE paper, from trained runs."""

from pyro_dpvae.reproduction.figures.numbered import FIGURES, NumberedFigure
from pyro_dpvae.reproduction.figures.systems import Subjects, SystemKey, title_of

__all__ = ["FIGURES", "NumberedFigure", "Subjects", "SystemKey", "title_of"]
