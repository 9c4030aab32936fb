"""Tables: as text for a terminal, as Markdown, CSV, HTML and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain, repeat

from markupsafe import Markup

__all__ = ["csv_table", "html_table", "latex_table", "letter", "markdown_table", "text_table"]

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", "\N{MINUS SIGN}": "$-$", "τ": r"$\tau$"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def text_table(rows: Sequence[Sequence[str]], *, align: str = "<>") -> str:
    """Return rows of cells as lines of text, with two spaces between columns.

    Args:
        rows: the header, if there is one, and the rows below it, with equally many cells.
        align: ``<`` for a column of text and ``>`` for one of numbers, in the order of the
            columns; the last one holds for all further columns.

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


def csv_table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of cells as comma-separated values.

    Example:
        >>> print(csv_table([["metric", "value"], ["nll", 98.25], ["a, b", None]]))
        metric,value
        nll,98.25
        "a, b",
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")


def html_table(rows: Sequence[Sequence[str]], *, caption: str = "", align: str = "<") -> Markup:
    """Return rows of cells as a table in HTML; the first row and the first column are headers.

    Texts are escaped, cells that are ``Markup`` are not.

    Args:
        rows: the header and the rows below it.
        caption: the title of the table.
        align: as in :func:`text_table`; columns of numbers get the class ``number``.

    Example:
        >>> print(html_table([["metric", "A"], ["nll", "< 98"]], align="<>").split("<tbody>")[1])
        <tr><th scope="row">nll</th><td class="number">&lt; 98</td></tr></tbody></table>
    """
    sides = list(zip(rows[0], chain(align, repeat(align[-1])), strict=False))
    kinds = [Markup(' class="number"') if side == ">" else Markup("") for _, side in sides]
    cells = [
        Markup('<th scope="col"{}>{}</th>').format(*pair)
        for pair in zip(kinds, rows[0], strict=True)
    ]
    lines = [
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0],
            Markup("").join(
                Markup("<td{}>{}</td>").format(*pair)
                for pair in zip(kinds[1:], row[1:], strict=True)
            ),
        )
        for row in rows[1:]
    ]
    title = Markup("<caption>{}</caption>").format(caption) if caption else ""
    return Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(
        title, Markup("").join(cells), Markup("").join(lines)
    )


def latex_table(rows: Sequence[Sequence[str]]) -> str:
    r"""Return rows of cells as a tabular for LaTeX's booktabs; the first row is the header.

    Example:
        >>> print(latex_table([["metric", "A"], ["active_units", "2 ± 1"]]))
        \begin{tabular}{lr}
        \toprule
        metric & A \\
        \midrule
        active\_units & 2 $\pm$ 1 \\
        \bottomrule
        \end{tabular}
    """
    signs = re.compile("|".join(map(re.escape, _LATEX)))
    lines = [
        " & ".join(signs.sub(lambda found: _LATEX[found[0]], cell) for cell in row) + r" \\"
        for row in rows
    ]
    columns = "l" + "r" * (len(rows[0]) - 1)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*head, *lines[1:], r"\bottomrule", r"\end{tabular}"])


def letter(index: int) -> str:
    """Return the name of a column: A, B ... Z, AA, AB ...

    Example:
        >>> letter(0), letter(27)
        ('A', 'AB')
    """
    last = chr(ord("A") + index % 26)
    return last if index < 26 else letter(index // 26 - 1) + last
