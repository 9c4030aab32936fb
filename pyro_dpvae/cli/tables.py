"""The data files that commands write: NumPy arrays, CSV and AnnData."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae._files import make_folder, write_whole
from pyro_dpvae.data.sources import library
from pyro_dpvae.evaluation.table import csv_table
from pyro_dpvae.runs import RunFolder

__all__ = ["PICTURES", "TABLES", "chosen_file", "is_table", "write_rows"]

TABLES = ("npy", "csv", "h5ad")
"""The formats of rows, by their endings."""

PICTURES = ("png", "pdf")
"""The formats of pictures, by their endings."""


def chosen_file(options: Namespace, usual: str, *, formats: Sequence[str]) -> Path:
    """Return the file that ``--out`` and ``--to`` name.

    Args:
        options: of a command that writes a file of a run. Without ``--out`` it is the usual file
            in the run folder, and without ``--to`` its format is that of its ending.
        usual: the usual file, with its ending.
        formats: what can be written.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the format is none of them, or the file has another ending.
    """
    folder = RunFolder.open(options.run).path
    out, to = options.out, options.to
    if to is not None:
        check_choice("--to", to, formats)
    if out is None:
        return (folder / usual).with_suffix(Path(usual).suffix if to is None else f".{to}")
    path = Path(out)
    ending = _ending(path)
    if path.is_dir() or ending not in formats or to not in (None, ending):
        wanted = formats if to is None else (to,)
        raise ValueError(
            f"--out must name a file that ends in {' or '.join(f'.{one}' for one in wanted)}, got "
            f"{out!r}; give {path.with_suffix(f'.{wanted[0]}')}"
        )
    return path


def is_table(path: Path) -> bool:
    """Return True for a file whose ending names a table."""
    return _ending(path) in TABLES


def _ending(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()


def write_rows(
    path: Path,
    rows: Tensor,
    *,
    columns: Sequence[str] | None = None,
    about: Mapping[str, Sequence[object]] | None = None,
) -> list[Path]:
    """Write rows to a file in the format of its ending; returns the files that were written.

    A ``.csv`` has what is known about each row behind its numbers, a ``.h5ad`` as its
    observations; a ``.npy`` has the numbers alone, and a ``.csv`` of the rest lies beside it.

    Args:
        path: the file.
        rows: of shape (count, ...).
        columns: the names of the numbers of a row.
        about: what is known about each row, by name; ``name`` also names the observations.

    Raises:
        ValueError: for a format that the library for is missing, with the extra that brings it.
    """
    about = about or {}
    flat = rows.flatten(1)
    names = list(columns or [f"x{number + 1}" for number in range(flat.shape[1])])
    if _ending(path) == "npy":
        content = BytesIO()
        np.save(content, rows.numpy())
        write_whole(path, content.getvalue())
        if not about:
            return [path]
        beside = path.with_suffix(".rows.csv")
        _write_csv(beside, [list(about), *zip(*about.values(), strict=True)])
        return [path, beside]
    if _ending(path) == "csv":
        lines = zip(flat.tolist(), *about.values(), strict=True)
        every = [[*numbers, *known] for numbers, *known in lines]
        _write_csv(path, [[*names, *about], *every])
        return [path]
    anndata = library("anndata", path)
    pd: Any = library("pandas", path)

    places = list(map(str, about.get("name", ())))
    if len({*places}) < len(flat):  # AnnData needs different names
        places = [str(number) for number in range(len(flat))]
    observed = pd.DataFrame({name: list(values) for name, values in about.items()}, index=places)
    table = anndata.AnnData(flat.numpy(), obs=observed, var=pd.DataFrame(index=names))
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    table.write_h5ad(part)
    part.replace(path)
    return [path]


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    write_whole(path, f"{csv_table(rows)}\n".encode())
