"""``dpvae encode RUN``: the latents of all data, in the order of their file."""

import torch
from jsonargparse import Namespace

from pyro_dpvae.cli.opening import open_run
from pyro_dpvae.cli.tables import TABLES, chosen_file, write_rows
from pyro_dpvae.data import DataSet
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Write the mean of q(z | x) for each datum; returns the exit status."""
    usual = RunFolder.open(options.run).path / "latents.npy"
    path = chosen_file(options.out, options.to, usual=usual, formats=TABLES)
    saved = open_run(options)
    data = saved.load_data(options.root, source=options.data)
    means = torch.cat([saved.means(split).cpu() for split in data.splits.values()])
    places = _in_order(data)
    splits = [name for name, split in data.splits.items() for _ in range(split_size(split))]
    about = {"split": [splits[place] for place in places]}
    labels = _labels(data)
    if labels is not None:
        about["label"] = [labels[place] for place in places]
    columns = [f"z{number + 1}" for number in range(means.shape[1])]
    files = write_rows(path, means[places], columns=columns, about=about)
    print(f"latents of {len(means)} data: {', '.join(map(str, files))}")
    return 0


def _in_order(data: DataSet) -> list[int]:
    """Return where each datum of the file is among the splits, one after the other.

    Held-out data that were chosen at random stand between the others in the file.
    """
    sizes = [split_size(split) for split in data.splits.values()]
    if data.held_out is None:
        return list(range(sum(sizes)))
    train, held_out = sizes[0], sorted(data.held_out.tolist())
    apart = {place: train + number for number, place in enumerate(held_out)}
    others = iter(range(train))
    return [apart[place] if place in apart else next(others) for place in range(sum(sizes))]


def _labels(data: DataSet) -> list[str] | None:
    """Return the class of each datum, split after split; empty where it is not known."""
    known = {"train": data.train_labels, "test": data.test_labels}
    if all(labels is None for labels in known.values()):
        return None
    found: list[str] = []
    for name, split in data.splits.items():
        labels = known.get(name)
        if labels is None:
            found += [""] * split_size(split)
            continue
        names = data.label_names
        found += [names[label] if names else str(label) for label in labels.tolist()]
    return found
