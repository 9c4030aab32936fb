#!/usr/bin/env bash
# Package: anndata 0.12.19 (anndata.experimental.concat_on_disk), with zarr 3.1.6 and h5py 3.16.0.
#
# concat_on_disk joins files of cells without loading them. For sparse matrices the type of the
# numbers is that of the *first* file, and the numbers of all other files are forced into it without
# a word: it writes the first matrix as it is and appends the others to its data
# (CSRDataset.append), which asks for the format and the shape, and not for the type. What is left
# of a number that does not fit depends on the kind of file: HDF5 cuts it off at the largest number,
# zarr takes it modulo 256. anndata.concat of the same data in memory takes a type that holds all,
# and so does concat_on_disk for dense matrices.
#
# Counts are stored as uint8 in one file and as uint16 in the next because the largest count of a
# sample decides what is small enough, and normalised values are floats. So a joined set of samples
# loses its highly expressed genes, or all that lies below 1, and a model of counts (a negative
# binomial VAE) is trained on them. Put the widest file first, or convert all files.
#
# Seen on 2026-11-30, where 3, 300, 70000 is appended to a first file, and then 0.5, 0.75, 2.25
# (with anndata 0.13.4, zarr 3.4.2 and Python 3.13 the same):
#   in memory, uint8 then uint32: [3, 300, 70000]
#   h5ad, sparse, uint8 then uint32: [3, 255, 255]
#   zarr, sparse, uint8 then uint32: [3, 44, 112]
#   h5ad, dense, uint8 then uint32: [3, 300, 70000]
#   zarr, dense, uint8 then uint32: [3, 300, 70000]
#   in memory, int32 then float32: [0.5, 0.75, 2.25]
#   h5ad, sparse, int32 then float32: [0, 0, 2]
#   zarr, sparse, int32 then float32: [0, 0, 2]
#   h5ad, dense, int32 then float32: [0.5, 0.75, 2.25]
#   zarr, dense, int32 then float32: [0.5, 0.75, 2.25]
#
# Exits with 1 if a joined sparse file holds what was stored.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3.11 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check anndata==0.12.19 zarr==3.1.6 \
    h5py==3.16.0 numpy==2.4.6 scipy==1.17.1 pandas==2.3.3 dask==2026.8.0
cd "$room"
"$room/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import anndata
import numpy as np
import pandas as pd
from anndata.experimental import concat_on_disk
from scipy import sparse


def table(numbers, kind, layout, name):
    """Return one cell with three genes."""
    row = np.array([numbers], dtype=kind)
    frame = pd.DataFrame(index=[name])
    genes = pd.DataFrame(index=["g0", "g1", "g2"])
    matrix = sparse.csr_matrix(row) if layout == "sparse" else row
    return anndata.AnnData(matrix, obs=frame, var=genes)


def second_cell(joined):
    matrix = joined.X.toarray() if sparse.issparse(joined.X) else np.asarray(joined.X)
    return matrix[1].tolist()


kept = False
cases = [("uint8", "uint32", [3, 300, 70000]), ("int32", "float32", [0.5, 0.75, 2.25])]
for first, second, numbers in cases:
    parts = {
        layout: [table([1, 2, 3], first, layout, "a"), table(numbers, second, layout, "b")]
        for layout in ("sparse", "dense")
    }
    in_memory = second_cell(anndata.concat(parts["sparse"]))
    print(f"in memory, {first} then {second}: {in_memory}")
    assert in_memory == numbers
    for layout, pair in parts.items():
        for ending in ("h5ad", "zarr"):
            stem = f"{layout}-{first}"
            names = [f"{stem}-{number}.{ending}" for number in (1, 2)]
            read = anndata.read_h5ad if ending == "h5ad" else anndata.read_zarr
            for name, part in zip(names, pair, strict=True):
                getattr(part, f"write_{ending}")(name)
            assert second_cell(anndata.concat([read(name) for name in names])) == numbers
            concat_on_disk(names, f"{stem}.{ending}")
            got = second_cell(read(f"{stem}.{ending}"))
            print(f"{ending}, {layout}, {first} then {second}: {got}")
            kept |= layout == "sparse" and got == numbers
sys.exit(kept)
PYTHON
