"""``dpvae encode RUN``: the latents of all data, in the order of their file."""

from collections.abc import Mapping

import torch
from jsonargparse import Namespace

from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.cli.tables import TABLES, chosen_file, write_rows
from pyro_dpvae.data import DataSet, Split
from pyro_dpvae.data.dataset import split_size

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Write the mean of q(z | x) for each datum; returns the exit status."""
    path = chosen_file(options, "latents.npy", formats=TABLES)
    saved = opened_run(options)
    data = saved.load_data(options.root, source=options.data)
    splits = dict(data.splits)
    if data.test is data.train:  # where nothing is held out
        del splits["test"]
    means = torch.cat([saved.means(split).cpu() for split in splits.values()])
    size = len(means)
    places = range(size) if data.places is None else data.places.argsort().tolist()
    names = [name for name, split in splits.items() for _ in range(split_size(split))]
    about = {"split": [names[place] for place in places]}
    labels = _labels(data, splits)
    if labels is not None:
        about["label"] = [labels[place] for place in places]
    if data.names:
        rows = [
            name
            for split, items in splits.items()
            for name in data.names.get(split) or [""] * split_size(items)
        ]
        about["name"] = [rows[place] for place in places]
    columns = [f"z{number + 1}" for number in range(means.shape[1])]
    files = write_rows(path, means[list(places)], columns=columns, about=about)
    print(f"latents of {len(means)} data: {', '.join(map(str, files))}")
    return 0


def _labels(data: DataSet, splits: Mapping[str, Split]) -> list[str] | None:
    """Return the class of each datum, split after split; empty where it is not known."""
    known = {"train": data.train_labels, "test": data.test_labels}
    if all(labels is None for labels in known.values()):
        return None
    found: list[str] = []
    for name, split in splits.items():
        labels = known.get(name)
        if labels is None:
            found += [""] * split_size(split)
            continue
        names = data.label_names
        found += [names[label] if names else str(label) for label in labels.tolist()]
    return found
