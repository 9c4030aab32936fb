"""Tables with a header: .csv, .tsv and .parquet."""

from pathlib import Path
from typing import Any

import numpy as np

from pyro_dpvae.data.formats.extras import library
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["read_table"]

_LABELS = ("label", "labels", "class", "target", "targets")


def read_table(path: Path) -> Source:
    """Return the columns of a table as vectors, with their names.

    A column called ``label``, ``class`` or ``target`` is the label, unless it has real numbers. A
    column without a name, or an index written by pandas, is ignored.

    Raises:
        ImportError: without pyarrow.
        ValueError: for a column with gaps or without numbers, or a table without a header.
    """
    table, names = _table(path)
    _check_header(names, path)
    types = library("pyarrow.types", path)
    labels = {name for name in names if not types.is_floating(table.schema.field(name).type)}
    label = next((name for name in _LABELS if name in labels), None)
    index = {name for name in names if name in ("", "Unnamed: 0")}
    index |= {*names} & {*map(str, (table.schema.pandas_metadata or {}).get("index_columns", ()))}
    columns = [name for name in names if name not in {label, *index}]
    notes = [f"column {label!r} is the label"] if label else []
    if index:
        notes.append(f"ignored index columns: {', '.join(map(repr, sorted(index)))}")
    if not columns:
        raise DataError(f"a table must have columns of numbers, got {names} in {path}")
    array = np.empty((table.num_rows, len(columns)), np.float64)
    for place, name in enumerate(columns):
        array[:, place] = _numbers(table.column(name), name, path)
    if all(table.schema.field(name).type == "float" for name in columns):
        array = array.astype(np.float32)
    return Source(
        path.stem,
        {"train": Part(array, None if label is None else _labels(table.column(label), path))},
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
            "replace its values by numbers (a column of 0 and 1 for each), remove the column, "
            "or name it 'label' if it is the label"
        )
    return column.to_numpy()


def _labels(column: Any, path: Path) -> Any:
    if column.null_count:
        raise DataError(
            f"{column.null_count} rows of {path} have no label: every row must have one; add "
            "labels, or remove the rows"
        )
    return np.array(column.to_pylist())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
