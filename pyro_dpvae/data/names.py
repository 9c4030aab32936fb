"""Roles of the arrays of an archive, by their names."""

import re
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from pyro_dpvae._checks import check_choice
from pyro_dpvae.data.labels import is_factors, warn
from pyro_dpvae.data.meaning import Array, Rows
from pyro_dpvae.data.sources import Part, Source
from pyro_dpvae.errors import DataError

__all__ = ["by_name", "split_of"]

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LABELS = {"class", "classes", "label", "labels", "target", "targets", "y"}
_FACTORS = {"factor", "factors", "latents_classes"}
_IMAGES = ("images", "imgs", "image")
# In order of preference where a file has several.
_DATA = ("", *_IMAGES, "x", "data")

# Names of the factors in published files, which do not contain them.
_DSPRITES = ("colour", "shape", "scale", "orientation", "position x", "position y")
_SHAPES = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")
_MPI3D = (
    "object colour",
    "object shape",
    "object size",
    "camera height",
    "background colour",
    "horizontal axis",
    "vertical axis",
)
# MPI3D lists the images of all combinations of factors; the last factor varies fastest.
_MPI3D_SIZES = ((6, 6, 2, 3, 3, 40, 40), (4, 4, 2, 3, 3, 40, 40))


def split_of(name: str) -> tuple[str | None, str]:
    """Return the split in a name, if any, and the rest of the name.

    Example:
        >>> split_of("x_train"), split_of("val_images"), split_of("testdata"), split_of("imgs")
        (('train', 'x'), ('valid', 'images'), ('test', 'data'), (None, 'imgs'))
    """
    name, words = name.lower(), "|".join(sorted(_SPLITS, key=len, reverse=True))
    if found := re.fullmatch(rf"({words})[_\-./ ]?(.*)", name):
        return _SPLITS[found[1]], found[2]
    if found := re.fullmatch(rf"(.*)[_\-./ ]({words})", name):
        return _SPLITS[found[2]], found[1]
    return None, name


def by_name(
    arrays: Mapping[str, Rows],
    name: str,
    where: str,
    *,
    objects: Sequence[str] = (),
    labels: str | None = None,
) -> Source:
    """Find data, labels and factors of each split in an archive of named arrays.

    Names contain a split (``train``, ``val``, ``valid``, ``validation``, ``dev``, ``test``) and a
    role (``images``, ``x``, ``data`` or nothing; ``labels``, ``y``, ``targets``; ``factors``), in
    any order. A single array is the data, whatever its name.

    Args:
        arrays: the arrays by name.
        name: name of the data set.
        where: name of the data in messages.
        objects: names of arrays of objects, which are not read.
        labels: the name of the array of labels, with or without a split; None takes the usual
            ones.

    Raises:
        ValueError: if the names do not tell which array is the data, or no array has the name of
            the labels.

    Warns:
        UserWarning: if labels or factors are arrays of objects.
    """
    roles = {key: split_of(key) for key in arrays}
    labelled = _LABELS
    if labels is not None:
        check_choice("labels", labels, {*arrays, *(role for _, role in roles.values())})
        labelled = {split_of(labels)[1]}
    data: dict[str | None, str] = {}
    for split in (None, "train", "valid", "test"):
        keys = [key for key, (of, rest) in roles.items() if of == split and rest in _DATA]
        if keys:
            data[split] = min(keys, key=lambda key: _DATA.index(roles[key][1]))
    if not data:
        unlabelled = {key: arrays[key] for key in arrays if roles[key][1] not in labelled}
        data[None] = _only(unlabelled, where)
    if "train" not in data:
        data["train"] = data.pop(None) if None in data else data.pop(next(iter(data)))
    data.pop(None, None)
    used, parts, several = set(data.values()), {}, set[str]()
    for split, key in data.items():
        assert split is not None
        part = parts[split] = Part(arrays[key])
        spoken = {split, roles[key][0], *((None,) if split == "train" else ())}
        for other, (of, role) in roles.items():
            if of in spoken and other not in used and role in labelled | _FACTORS:
                used.add(other)
                values = _values(arrays[other], len(arrays[key]), f"{other!r} of {where}")
                if role in _FACTORS:
                    part.factors = values
                elif is_factors(values):
                    part.factors = values
                    several.add(other)
                else:
                    part.labels = values
    said = roles[data["train"]][1] in _IMAGES
    source = Source(name, parts, where, "images" if said else None)
    if several:
        source.notes.append(f"factors of variation: {', '.join(map(repr, sorted(several)))}")
    if left := sorted(set(arrays) - used):
        source.notes.append(f"unused arrays: {', '.join(map(repr, left))}")
    if objects:
        source.notes.append(f"arrays of objects, not read: {', '.join(map(repr, objects))}")
    for key in objects:
        if split_of(key)[1] in labelled | _FACTORS:
            warn(
                f"labels and factors must be arrays of numbers or texts, got objects in {key!r} "
                f"of {where}, which are not unpickled; store them with .astype(str)"
            )
    _name_factors(source, arrays)
    return source


def _only(arrays: Mapping[str, Rows], where: str) -> str:
    others = [key for key in arrays if not re.search("label|factor|target", key.lower())]
    if len(others) != 1:
        raise DataError(
            "the data array is not clear: a file of several arrays must name it 'train' and "
            f"'test' (and 'valid'), or 'images', or 'x'; got arrays {sorted(arrays)} in {where}"
        )
    return others[0]


def _values(rows: Rows, count: int, where: str) -> Array:
    values: Array = np.asarray(rows[:] if rows.shape else rows)
    if values.ndim == 2 and values.shape[0] == 1 != count:  # MATLAB stores vectors as rows
        values = values.T
    if values.ndim == 0 or len(values) != count or values.ndim > 2:
        raise DataError(
            f"labels and factors must have one row per item, got shape {values.shape} for "
            f"{count} items in {where}"
        )
    return values


def _name_factors(source: Source, arrays: Mapping[str, Rows]) -> None:
    """Set the names of factors of published files, and factors that follow from the order."""
    part, name = source.parts["train"], source.name.lower()
    sizes = next((one for one in _MPI3D_SIZES if prod(one) == len(part.data)), None)
    if part.factors is None and part.labels is None and "mpi3d" in name and sizes is not None:
        part.factors = np.stack(np.unravel_index(np.arange(prod(sizes)), sizes), 1)
        source.factor_names = _MPI3D
    if part.factors is None or part.factors.ndim != 2 or part.factors.shape[1] != 6:
        return
    if "latents_classes" in arrays:
        source.factor_names = _DSPRITES
    elif "3dshapes" in name:
        source.factor_names = _SHAPES
