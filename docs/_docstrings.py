"""An extension of mkdocstrings: the docstrings' own conventions, in the words of Markdown."""

import re
from textwrap import dedent
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_REFERENCES = re.compile(r"^References:\n((?: +.*\n?|\n)+)", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")


class Conventions(Extension):
    """Take ``Example:`` for doctests, ``References:`` for text, roles of Sphinx for names."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring as it is loaded."""
        if obj.docstring is None:
            return
        if obj.is_module:  # its page says what a room is in the words of the first sentence
            _, _, rest = obj.docstring.value.partition("\n\n")
            obj.docstring.value = rest
            return
        text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
        text = _REFERENCES.sub(_as_paragraph, text)
        first, *others = text.split("\n\n", 1)
        # Summaries show the first line alone.
        text = "\n\n".join((" ".join(first.split()), *others))
        obj.docstring.value = _ROLE.sub(r"`\1`", text)


def _as_paragraph(found: re.Match[str]) -> str:
    return f"**References:** {dedent(found[1]).strip()}\n\n"
