"""A hook of mkdocs: formulas become MathML, which browsers draw without scripts or network.

Pages write ``$z_0$`` and ``$$...$$``, as GitHub renders them. The Markdown extension arithmatex
finds them; this hook replaces each by the MathML of latex2mathml.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# Spaces that TeX sets around these, and latex2mathml does not.
_SPACED = {r"\\(log|det) ": r"\\\1\\, ", r"\\sim ": r"\\;\\sim\\; "}


def on_page_content(content: str, **_: Any) -> str:
    """Replace the formulas of a page."""
    return _FORMULA.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    tag, kind, formula = found.groups()
    formula = html.unescape(formula).strip()
    for pattern, spaced in _SPACED.items():
        formula = re.sub(pattern, spaced, formula)
    mathml = convert(formula, display="inline" if kind == "(" else "block")
    return f'<{tag} class="formula">{mathml}</{tag}>'
