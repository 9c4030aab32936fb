"""``dpvae data FILE``: how a data set is read, without training anything."""

from collections.abc import Iterator
from pathlib import Path

from jsonargparse import Namespace
from torch import Tensor

from pyro_dpvae._subsets import stacked
from pyro_dpvae.cli.drawing import picture_file, save_figure
from pyro_dpvae.cli.flags import in_flags
from pyro_dpvae.data import READING, DataSet, Split, load, scale_caution, shades
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.plots import sample_figure

__all__ = ["main"]

_DRAWN = 32
_NAMED = 10  # labels and columns that are listed


def main(options: Namespace) -> int:
    """Print how a data set is read, and draw some of it; returns the exit status."""
    picture = None if options.out is None else picture_file(options.out)
    reading = {name: getattr(options, name) for name in READING}
    data = load(options.data, root=options.root, **reading)
    for line in _described(data):
        print(line)
    picture = picture or Path(f"{data.name}-data.png")
    items = stacked(data.train, _DRAWN)
    columns = data.columns
    save_figure(sample_figure(shades(items) if data.is_images else items, columns), picture)
    print(f"{len(items)} training items: {picture}")
    return 0


def _described(data: DataSet) -> Iterator[str]:
    yield f"name      {data.name}"
    yield f"decision  {data.meaning or 'items as they are'}"
    for note in data.notes:
        yield f"note      {note}"
    if caution := scale_caution(data):
        yield f"caution   {in_flags(caution, [])}"
    for name, split in data.splits.items():
        yield f"{name:8}  {split_size(split):,} items: {_numbers(split)}"
    if data.columns is not None:
        yield f"columns   {_some(data.columns)}"
    if data.train_labels is None:
        yield "labels    none"
    else:
        counts = data.train_labels.unique(return_counts=True)
        names = data.label_names
        classes = [
            f"{names[label] if names else label} ({count:,})"
            for label, count in zip(*(part.tolist() for part in counts), strict=True)
        ]
        yield f"labels    {len(classes)} classes: {_some(classes)}"
    if data.test_factors is None:
        yield "factors   none"
    else:
        factors = data.test_factors
        called = data.factor_names or tuple(map(str, range(factors.shape[1])))
        values = [f"{name} ({len(f.unique())})" for name, f in zip(called, factors.T, strict=True)]
        yield f"factors   {_some(values)}"


def _numbers(split: Split) -> str:
    """Return type, range and mean of a split; of data read as needed, of a few."""
    few = "" if isinstance(split, Tensor) else " of some"
    items = split if isinstance(split, Tensor) else stacked(split, _DRAWN)
    total, low, high = 0.0, float("inf"), float("-inf")
    for part in items.split(1024):
        total += float(part.double().sum())
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    kind = str(items.dtype).removeprefix("torch.")
    return f"{kind} from {low:.4g} to {high:.4g}, mean {total / items.numel():.4g}{few}"


def _some(words: object) -> str:
    every = list(map(str, words))  # type: ignore[call-overload]
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"
