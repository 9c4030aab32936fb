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
    known = {"split": [name for name, split in splits.items() for _ in range(split_size(split))]}
    if (labels := _labels(data, splits)) is not None:
        known["label"] = labels
    if data.names:
        known["name"] = [
            name
            for split, items in splits.items()
            for name in data.names.get(split) or [""] * split_size(items)
        ]
    places = range(len(means)) if data.places is None else data.places.argsort().tolist()
    about = {name: [column[place] for place in places] for name, column in known.items()}
    columns = [f"z{number + 1}" for number in range(means.shape[1])]
    files = write_rows(path, means[list(places)], columns=columns, about=about)
    print(f"latents of {len(means)} data: {', '.join(map(str, files))}")
    return 0


def _labels(data: DataSet, splits: Mapping[str, Split]) -> list[str] | None:
    """Return the class of each datum, split after split; empty where it is not known."""
    known = {
        "train": data.train_labels,
        "valid": data.valid_labels,
        "test": data.test_labels,
    }
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
