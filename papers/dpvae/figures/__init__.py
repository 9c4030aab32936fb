"""The figures of the dpVAE paper, from trained runs."""

from papers.dpvae.figures.numbered import FIGURES, NumberedFigure
from papers.dpvae.figures.systems import Subjects, SystemKey, title_of

__all__ = ["FIGURES", "NumberedFigure", "Subjects", "SystemKey", "title_of"]
