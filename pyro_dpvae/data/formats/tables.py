"""Tables: .csv, .tsv and .parquet with a header, and .amat with an image in each line."""

import re
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae._checks import check_choice
from pyro_dpvae.data.labels import warn
from pyro_dpvae.data.sources import Part, Source, library
from pyro_dpvae.errors import DataError

__all__ = ["read_table"]

_LABELS = ("label", "labels", "class", "target", "targets")
# Columns that name rows: without a name of its own, id, sample_id, userId ...
_INDEX = re.compile(r"|Unnamed: 0|(?:.*[_ .-])?(?i:id|uuid)|.*[a-z]I[dD]")


def read_table(path: Path, labels: str | None = None) -> Source:
    """Return the columns of a table as vectors, with their names.

    A column without a name, an index written by pandas, and columns such as ``id`` and
    ``sample_id`` are no data; the first of them names the rows.

    Args:
        path: the file.
        labels: the column of labels; None takes one called ``label``, ``class`` or ``target``,
            unless it has real numbers.

    Raises:
        ImportError: without pyarrow.
        ValueError: for a column with gaps or without numbers, or a table without a header, or
            without the column of labels.

    Warns:
        DataWarning: if a column called as labels are has real numbers, and so is no label.
    """
    table, names = _table(path)
    _check_header(names, path)
    if labels is not None:
        check_choice("labels", labels, names)
    types = library("pyarrow.types", path)
    whole = [name for name in names if not types.is_floating(table.schema.field(name).type)]
    label = labels or next((name for name in _LABELS if name in whole), None)
    stored = map(str, (table.schema.pandas_metadata or {}).get("index_columns", ()))
    ids = {*stored, *(name for name in whole if _INDEX.fullmatch(name))}
    index = [name for name in names if name in ids and name != label]
    columns = [name for name in names if name not in {label, *index}]
    for name in _LABELS if label is None else ():
        if name in columns:
            warn(
                f"column {name!r} of {path} has real numbers, which cannot be classes, so the "
                "model is trained on it; remove it if it is what you want to predict, or rename it"
            )
    notes = [f"column {label!r} is the label"] if label else []
    if index:
        notes.append(f"columns that name rows are no data: {', '.join(map(repr, index))}")
    if not columns:
        raise DataError(f"a table must have columns of numbers, got {names} in {path}")
    if not table.num_rows:
        raise DataError(f"a table must have rows below its header, got none in {path}; add data")
    array = np.empty((table.num_rows, len(columns)), np.float64)
    for place, name in enumerate(columns):
        array[:, place] = _numbers(table.column(name), name, path)
    if all(table.schema.field(name).type == "float" for name in columns):
        array = array.astype(np.float32)
    part = Part(array, None if label is None else _labels(table.column(label), path))
    if index:
        part.names = np.array(table.column(index[0]).to_pylist(), dtype=str)
    return Source(
        path.stem,
        {"train": part},
        str(path),
        "vectors",
        columns=tuple(columns),
        notes=notes,
    )


def _check_header(names: list[str], path: Path) -> None:
    if names and all(_is_number(name) for name in names):
        raise DataError(
            f"the table {path} has no header: its first line must have the names of its columns; "
            "add such a line"
        )
    if len({*names}) < len(names):
        raise DataError(
            f"the columns of a table must have different names, got {names} in {path}; rename "
            "one, or add a first line of names if this is a line of data"
        )
    if len(names) == 1 and ";" in names[0]:
        raise DataError(
            f"the columns of a table must be separated by commas, got {names[0]!r} as the header "
            f"of {path}; replace the semicolons"
        )


def _table(path: Path) -> tuple[Any, list[str]]:
    """Return a table and the names of its columns."""
    arrow = library("pyarrow", path)
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = library("pyarrow.parquet", path).read_table(path)
        else:
            csv = library("pyarrow.csv", path)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter))
        return table, table.column_names
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error


def _numbers(column: Any, name: str, path: Path) -> Any:
    kind = column.type
    types = library("pyarrow.types", path)
    if types.is_null(kind) or column.null_count:
        raise DataError(
            f"column {name!r} of {path} has {column.null_count} gaps: a table must have a number "
            "in every row and column; fill them, or remove the rows or the column"
        )
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise DataError(
            f"the columns of a table must be numbers, got {kind} in column {name!r} of {path}; "
            f"use labels={name!r} if it is the label, otherwise remove the column or replace its "
            "values by numbers (a column of 0 and 1 for each)"
        )
    return column.to_numpy()


def _labels(column: Any, path: Path) -> Any:
    labels = column.to_pylist()
    missing = sum(one is None or not str(one).strip() for one in labels)
    if missing:
        raise DataError(
            f"{missing} rows of {path} have no label: every row must have one; add labels, or "
            "remove the rows"
        )
    return np.array(labels)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_AT_ONCE = 1 << 24  # characters


def read_amat(path: Path) -> Source:
    """Return the images of an .amat file, one square image per line.

    An extra last number is the label.
    """
    blocks, width = [], 0
    with path.open(encoding="ascii", errors="replace") as file:
        while lines := file.readlines(_AT_ONCE):
            rows = [line for line in lines if line.strip()]
            try:
                numbers = np.array(" ".join(rows).split(), np.float32)
            except ValueError as error:
                raise DataError(f"{path} must hold numbers only: {error}") from error
            width = width or len(rows[0].split())
            if len(numbers) != width * len(rows):
                raise DataError(f"all lines of {path} must have the same number of entries")
            with np.errstate(invalid="ignore"):  # NaN is not equal to itself
                whole = numbers.astype(np.uint8)
            blocks.append((whole if (whole == numbers).all() else numbers).reshape(-1, width))
    if not blocks:
        raise DataError(f"{path} is empty: a data set needs items")
    array = np.concatenate(blocks)  # real numbers if one block has some
    labels = None
    if isqrt(width) ** 2 != width and isqrt(width - 1) ** 2 == width - 1:
        array, labels = np.ascontiguousarray(array[:, :-1]), array[:, -1]
    return Source(path.stem, {"train": Part(array, labels)}, str(path), "images")
