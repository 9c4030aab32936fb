"""``dpvae compare RUN RUN ...``: evaluated runs side by side, evaluated first on request."""

import math
from collections.abc import Sequence

from pyro_dpvae.cli.devices import add_device, chosen_device
from pyro_dpvae.cli.measuring import add_measuring, measure
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.recipes import open_system
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]

_WIDTH = 24


def main(arguments: Sequence[str]) -> int:
    """Print the comparison of runs; returns the exit status."""
    parser, measuring = _parser()
    options = parser.parse_args(list(arguments))
    if len(options.runs) < 2:  # before any is measured
        raise ValueError(f"a comparison needs at least two runs, got {len(options.runs)}")
    if options.evaluate:
        for run in options.runs:
            RunFolder.open(run)  # before any is measured
        device = chosen_device(options.device)
        for run in dict.fromkeys(options.runs):
            measure(open_system(run, device), options)
    else:
        for name in measuring:
            if options[name] != parser.get_default(name):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"options of an evaluation need --evaluate, got {option} without it; add "
                    f"--evaluate, or leave {option} out"
                )
    print(_table((compare_seeds if options.seeds else compare_runs)(options.runs)))
    return 0


def _parser() -> tuple[CommandParser, list[str]]:
    """Return the parser, and the names of the options that an evaluation alone has."""
    parser = CommandParser(
        prog="dpvae compare",
        description="Compare evaluated runs with the first: values with standard errors, then "
        "differences with intervals of 95 %, paired where the data or the seeds are the same.",
    )
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="measure first what 'dpvae evaluate' has not yet measured of the runs; the options "
        "below are of this",
    )
    own = {action.dest for action in parser._actions}
    add_measuring(parser)
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    add_device(parser)
    return parser, [action.dest for action in parser._actions if action.dest not in own]


def _table(comparison: Comparison) -> str:
    letters = [chr(ord("A") + index) for index in range(len(comparison.columns))]
    lines = [
        f"{letter}  {title}" for letter, title in zip(letters, comparison.columns, strict=True)
    ]
    for option, found in comparison.differing.items():
        lines.append(f"   {option}: {'  |  '.join(found)}")
    name_width = max(map(len, comparison.values), default=0) + 2
    header = "".join(f"{letter:>{_WIDTH}}" for letter in letters)
    header += "".join(f"{letter + ' - A':>{_WIDTH}}" for letter in letters[1:])
    lines += ["", f"{'':{name_width}}{header}"]
    for name, values in comparison.values.items():
        row = "".join(f"{_value(value):>{_WIDTH}}" for value in values)
        row += "".join(f"{_difference(one):>{_WIDTH}}" for one in comparison.differences[name])
        lines.append(f"{name:{name_width}}{row}")
    kinds = {one.how for row in comparison.differences.values() for one in row if one is not None}
    lines += [
        "",
        "values +- standard errors; differences +- half their interval of 95 %, "
        f"from {', '.join(sorted(kinds))}",
        "* an interval without zero; p: paired",
    ]
    return "\n".join(lines)


def _value(value: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.4f}" + ("" if math.isnan(value[1]) else f" +- {value[1]:.4f}")


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    if math.isnan(difference.half_width):
        return f"{difference.value:+.4f}  "
    clear = "*" if abs(difference.value) > difference.half_width else " "
    paired = "p" if difference.how.startswith("paired") else " "
    return f"{difference.value:+.4f} +- {difference.half_width:.4f}{clear}{paired}"
