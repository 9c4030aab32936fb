"""Elements of HTML and SVG whose texts and attributes are escaped, whatever they hold."""

import html
from typing import final

__all__ = ["Markup", "element", "joined"]

_VOID = frozenset({"br", "hr", "img", "meta"})


@final
class Markup(str):
    """Text that is markup already; any other text is escaped where it joins it."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: object) -> Markup:
    """Return an element with what it holds.

    Args:
        name: of the element, such as ``td``.
        children: markup, or text, which is escaped; None is left out.
        attributes: by name, without a last ``_`` and with ``-`` for any other ``_``; those that
            are None or false are left out, those that are true have no value.

    Example:
        >>> element("p", "1 < 2, ", element("b", "truly"), class_="note", hidden=True)
        '<p class="note" hidden>1 &lt; 2, <b>truly</b></p>'
    """
    shown = "".join(
        f" {_name(key)}"
        if value is True
        else f' {_name(key)}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Markup:
    """Return children side by side, those that are no markup escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(child, quote=False)
            for child in children
            if child is not None
        )
    )


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")
