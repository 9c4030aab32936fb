"""Tables of text: for a terminal, and as Markdown."""

from collections.abc import Sequence
from itertools import chain, repeat

__all__ = ["letter", "markdown_table", "text_table"]


def text_table(rows: Sequence[Sequence[str]], *, align: str = "<>") -> str:
    """Return rows of cells as lines of text, with two spaces between columns.

    Args:
        rows: the header, if there is one, and the rows below it, with equally many cells.
        align: ``<`` for a column of text and ``>`` for one of numbers, in the order of the
            columns; the last sign is that of all further columns.

    Example:
        >>> print(text_table([["metric", "A"], ["nll", "98.25"], ["skl", "0.5"]]))
        metric      A
        nll     98.25
        skl       0.5
    """
    columns = [
        [f"{cell:{side}{max(map(len, column))}}" for cell in column]
        for column, side in zip(
            zip(*rows, strict=True), chain(align, repeat(align[-1])), strict=False
        )
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a table in Markdown; the first row is the header.

    Example:
        >>> print(markdown_table([["metric", "A"], ["nll", "98.25"]]))
        | metric | A |
        |---|---|
        | nll | 98.25 |
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def letter(index: int) -> str:
    """Return the name of a column: A, B ... Z, AA, AB ...

    Example:
        >>> letter(0), letter(27)
        ('A', 'AB')
    """
    last = chr(ord("A") + index % 26)
    return last if index < 26 else letter(index // 26 - 1) + last
