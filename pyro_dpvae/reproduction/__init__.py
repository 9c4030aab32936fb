"""Tables and figures of a paper anew: what is asked and found, what becomes of the claims."""

from typing import TYPE_CHECKING

from pyro_dpvae._lazy import lazily

if TYPE_CHECKING:
    from pyro_dpvae.reproduction.budgets import AUTHORS_CODE, BUDGETS, EVALUATION, Budget, steps_of
    from pyro_dpvae.reproduction.markdown import as_markdown
    from pyro_dpvae.reproduction.results import measured
    from pyro_dpvae.reproduction.study import Study, alone, recalled, remember, run_path
    from pyro_dpvae.reproduction.table import table_of
    from pyro_dpvae.reproduction.text import as_text

__all__ = [
    "AUTHORS_CODE",
    "BUDGETS",
    "EVALUATION",
    "Budget",
    "Study",
    "alone",
    "as_markdown",
    "as_text",
    "measured",
    "recalled",
    "remember",
    "run_path",
    "steps_of",
    "table_of",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        __all__,
        modules=["budgets", "results", "study", "table", "markdown", "text"],
    )
