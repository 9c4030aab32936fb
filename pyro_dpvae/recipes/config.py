"""``RunConfig``: all that decides a training run, in Python, on the command line, in files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, wraps
from math import prod
from typing import Any, cast

from pyro_dpvae._checks import (
    check_choice,
    check_positive,
    check_positive_int,
    hint_at_fields,
    nearest,
    plain_number,
)
from pyro_dpvae._ranks import ranks
from pyro_dpvae.data import PREPROCESSING, READING, DataSet, load
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.errors import ConfigError
from pyro_dpvae.objectives import SCHEDULES, Weight
from pyro_dpvae.recipes.named import named_recipe
from pyro_dpvae.recipes.parts import KINDS, RATE_SCHEDULE, Part, as_mapping, default_of, resolved
from pyro_dpvae.recipes.system import System, build_system
from pyro_dpvae.training import StepOptions, TrainConfig

__all__ = [
    "BATCH_SIZE",
    "EPOCHS",
    "LATENT_DIM",
    "LEAST_STEPS_OF_IMAGES",
    "LEAST_STEPS_OF_VECTORS",
    "RunConfig",
]

BATCH_SIZE = 100
"""The largest number of data in a step if it is not given."""

EPOCHS = 10
"""The number of epochs if neither steps nor epochs are given."""

LEAST_STEPS_OF_IMAGES, LEAST_STEPS_OF_VECTORS = 1000, 3000
"""The least number of steps if neither steps nor epochs are given; a step of vectors is short."""

LATENT_DIM = 10
"""The size of z if it is not given and a datum has as many numbers."""

_OF_SIZE = ("vae", "lossy")  # models that take a size of z; ladders have that of their layers


def _starting_from_recipe(cls: type) -> type:
    """Make a dataclass take the options of its recipe that are not given; a decorator."""
    init = cls.__init__  # type: ignore[misc]  # the one that dataclass has written

    @wraps(init)
    def starting(self: Any, **options: Any) -> None:
        init(self, **_with_recipe(options))

    cls.__init__ = starting  # type: ignore[misc]
    return cls


@hint_at_fields
@_starting_from_recipe
@dataclass(frozen=True, kw_only=True)
class RunConfig(StepOptions):
    """All that decides a training run: data, parts, and how they are trained.

    It has the options of ``StepOptions`` as well. Names are those of ``dpvae train``:
    ``latent_dim=8`` here is ``--latent-dim 8`` there and ``latent_dim: 8`` in a YAML file. A part
    is a short name, the dotted path of a class or function of your own, or a mapping of that and
    its options: ``prior={"name": "coupling", "blocks": 4}``.

    Args:
        data: a data set by name (mnist, svhn, two-moons and others), a file (.npz, .h5, .mat,
            .csv, .h5ad and others) or a folder of images; 'dpvae data FILE' shows how it is read.
        root: the folder that holds data sets by name.
        layout: what the items of a file are: images, sequences or vectors; None decides by shape
            and type.
        labels: the column or array of a file with the labels, which colour figures and are
            predicted in evaluations, and are no data; None takes one with a usual name, such as
            label or class.
        standardise: columns of a file that get mean 0 and standard deviation 1: all, or names
            separated by commas.
        held_out: the share of a file without splits that is held out at random, or none; None
            takes 0.1.
        background: the colour behind transparent images of a folder: white or black; None takes
            white.
        image_size: the height and width to which the central squares of a folder's images are
            resized; None leaves them as they are.
        workers: the number of processes that read data too large for memory; 0 reads in this one.
        preprocessing: what is done to data before the model sees them: binary-dynamic,
            binary-static, dequantised, grey, logit or none; None takes grey for images, none for
            sequences and vectors.
        latent_dim: the size of z; None takes 10, or as many as a datum has numbers if these are
            fewer, or the sum of a ladder's layers.
        model: the model p(x, z).
        prior: the prior p(z).
        likelihood: the likelihood p(x|z).
        network: the networks of encoder and decoder.
        pixels: the pixel network of a lossy model.
        guide: the guide q(z|x).
        objective: the objective; ``schedule`` in it maps weights to schedules, which end at the
            weight's own value.
        steps: the number of training steps; None takes those of the epochs.
        epochs: the number of epochs, instead of steps; None takes 10, but at least 1000 steps of
            images and 3000 of vectors.
        batch_size: the number of data in a step, of all processes together; None takes 100, or
            somewhat fewer if there are fewer data, or a single one would be left for the last
            step of an epoch.
        learning_rate: Adam's initial learning rate.
        learning_rate_schedule: how the learning rate goes on from there: a name of ``SCHEDULES``
            with its ``end`` and ``steps``, or constant.
        tensorboard: whether the run folder gets a folder ``tensorboard`` of event files.
        device: auto (CUDA where there is one), cpu, or a device of PyTorch such as cuda:0.
        recipe: the system of a paper, one of 'dpvae recipes', whose options the other ones
            replace.

    Raises:
        ValueError: for an unknown part or option, or a value that it cannot take.

    Example:
        >>> config = RunConfig(data="two-moons", prior={"name": "coupling", "blocks": 4})
        >>> config.prior
        {'name': 'coupling', 'blocks': 4, 'hidden': [64, 64], 'activation': 'silu'}
    """

    data: str
    root: str | None = None
    layout: str | None = None
    labels: str | None = None
    standardise: str | None = None
    held_out: float | str | None = None
    background: str | None = None
    image_size: int | None = None
    workers: int = 2
    preprocessing: str | None = None
    latent_dim: int | None = None
    model: Part = KINDS["model"].default
    prior: Part = KINDS["prior"].default
    likelihood: Part = KINDS["likelihood"].default
    network: Part = KINDS["network"].default
    pixels: Part = KINDS["pixels"].default
    guide: Part = KINDS["guide"].default
    objective: Part = KINDS["objective"].default
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1e-3
    learning_rate_schedule: Part = "constant"
    tensorboard: bool = False
    device: str = "auto"
    recipe: str | None = None

    def __post_init__(self) -> None:
        for name, value in _checked({n: getattr(self, n) for n in _plain_options()}).items():
            object.__setattr__(self, name, value)
        super().__post_init__()
        if not self.data:  # which a path takes for the present folder
            raise ConfigError("data must not be empty, got ''; give a name, a file or a folder")
        if self.preprocessing is not None:
            check_choice("preprocessing", self.preprocessing, PREPROCESSING)
        check_positive("learning_rate", self.learning_rate)
        for name in ("steps", "epochs", "latent_dim", "batch_size"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(
                f"give steps or epochs, not both; got {self.steps} steps and {self.epochs} epochs"
            )
        for kind in (*KINDS, RATE_SCHEDULE):
            object.__setattr__(self, kind, resolved(kind, getattr(self, kind)))
        self._rate(1)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "RunConfig":
        """Return the configuration of a mapping of options, such as ``config.json`` of a run.

        Raises:
            ValueError: for an option that there is none of, as for a wrong value.
        """
        known = [one.name for one in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"there is no option {name!r} of a run{nearest(name, known)}")
        options = _with_recipe(options)
        if options.get("data") is None:
            raise ConfigError("data is missing; give the name of a data set, a file or a folder")
        plain = {name: options[name] for name in _plain_options() if name in options}
        parts: dict[str, Any] = {
            k: as_mapping(k, options[k]) for k in (*KINDS, RATE_SCHEDULE) if k in options
        }
        return cls(**parts, **_checked(plain))

    @classmethod
    def from_recipe(cls, name: str, **options: Any) -> "RunConfig":
        """Return the configuration of a recipe, with other options instead of its own.

        A part that is another than the recipe's loses the recipe's options for it.

        Args:
            name: one of ``RECIPES``.
            options: of ``RunConfig``.

        Raises:
            ValueError: if there is no such recipe, or the options are wrong.

        Example:
            >>> config = RunConfig.from_recipe("mnist-vae-dp", steps=500)
            >>> config.steps, config.prior["name"]
            (500, 'coupling')
        """
        return cls.of({**options, "recipe": name})

    def part(self, kind: str) -> Mapping[str, Any]:
        """Return the name and all options of a part, one of ``KINDS``."""
        return cast(Mapping[str, Any], getattr(self, kind))

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON has them; :meth:`of` takes them back."""
        return dict(
            json.loads(json.dumps({one.name: getattr(self, one.name) for one in fields(self)}))
        )

    def load_data(self, *, download: bool = False) -> DataSet:
        """Load the data set.

        Args:
            download: whether a data set by name is fetched into ``root`` if it is missing.
        """
        reading = {name: getattr(self, name) for name in READING}
        return load(self.data, root=self.root, download=download, **reading)

    def for_data(self, data: DataSet) -> "RunConfig":
        """Return the configuration with the defaults that depend on the data set."""
        latent_dim, preprocessing = self.latent_dim, self.preprocessing
        batch_size = self.batch_size or _usual_batch_size(split_size(data.train))
        if latent_dim is None and self.part("model")["name"] in _OF_SIZE:
            latent_dim = min(LATENT_DIM, max(2, prod(data.item_shape)))
        if preprocessing is None:
            preprocessing = "grey" if data.is_images else "none"
        return replace(
            self, latent_dim=latent_dim, preprocessing=preprocessing, batch_size=batch_size
        )

    def build(self, shape: tuple[int, ...], *, dataset_size: int) -> System:
        """Build model, guide and objective.

        Args:
            shape: the shape of a datum.
            dataset_size: the number of training data.

        Raises:
            ValueError: if the parts do not fit the shape or each other.
        """
        return build_system(
            shape,
            latent_dim=self.latent_dim,
            dataset_size=dataset_size,
            **{kind: getattr(self, kind) for kind in KINDS},
        )

    def steps_for(self, per_epoch: int, *, images: bool) -> int:
        """Return the number of training steps.

        Args:
            per_epoch: the number of batches in an epoch.
            images: whether the data are images.
        """
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return self.epochs * per_epoch
        # Ten epochs of a few hundred data are a few steps, which teach next to nothing.
        least = LEAST_STEPS_OF_IMAGES if images else LEAST_STEPS_OF_VECTORS
        return max(EPOCHS * per_epoch, least)

    def for_steps(self, steps: int) -> "RunConfig":
        """Return the configuration with the steps of the learning rate's schedule written down.

        They would change with the steps of a run that goes on.
        """
        schedule = self.part(RATE_SCHEDULE)
        if schedule.get("steps", steps) is not None:
            return self
        return replace(self, learning_rate_schedule={**schedule, "steps": steps})

    def training(self, steps: int) -> TrainConfig:
        """Return how the parts are trained in a number of steps."""
        shared = {one.name: getattr(self, one.name) for one in fields(StepOptions)}
        return TrainConfig(steps=steps, learning_rate=self._rate(steps), **shared)

    def _rate(self, steps: int) -> Weight:
        """Return the learning rate, or its schedule, which by default takes all steps."""
        schedule = dict(self.part(RATE_SCHEDULE))
        name = schedule.pop("name")
        if name == "constant":
            return self.learning_rate
        end, length = schedule.pop("end"), schedule.pop("steps") or steps
        if not end >= 0:
            raise ConfigError(f"learning_rate_schedule.end must be 0 or more, got {end}")
        return SCHEDULES[name](self.learning_rate, end, length, **schedule)


def _usual_batch_size(size: int) -> int:
    """Return the largest batch up to ``BATCH_SIZE`` that ranks can share.

    Penalties and batch norm need two data on each rank, so no batch may be left with one.

    Example:
        >>> _usual_batch_size(1000), _usual_batch_size(54), _usual_batch_size(101)
        (100, 54, 99)
    """
    count, most = ranks().count, min(BATCH_SIZE, size)
    fitting = (b for b in range(most, 0, -1) if b % count == 0 and size % b // count != 1)
    return next(fitting, most)


def _with_recipe(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with those of their recipe, except for a whole configuration."""
    name = options.get("recipe")
    if name is None or set(KINDS) <= set(options):
        return dict(options)
    return {**merged(options, named_recipe(name).options), "recipe": name}


@cache
def _plain_options() -> tuple[str, ...]:
    return tuple(one.name for one in fields(RunConfig) if one.name not in (*KINDS, RATE_SCHEDULE))


@cache
def _parser() -> Any:
    from pyro_dpvae._parser import CommandParser

    parser = CommandParser()
    skip = {*KINDS, RATE_SCHEDULE}
    parser.add_class_arguments(RunConfig, None, as_group=False, skip=skip)
    return parser


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return plain options as their types have them.

    Raises:
        ValueError: for a value of another type.
    """
    from pyro_dpvae._parser import UsageError

    options = {name: plain_number(value) for name, value in options.items()}
    try:
        return dict(_parser().parse_object(options).as_dict())
    except UsageError as error:
        raise ConfigError(error.refusal.removeprefix("--")) from error


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of which the first go before the second.

    A part or schedule that the first name otherwise loses the options of the second, and a number
    of steps excludes a number of epochs.

    Example:
        >>> merged({"prior": "standard"}, {"prior": {"name": "coupling", "blocks": 4}, "seed": 1})
        {'prior': {'name': 'standard'}, 'seed': 1}
        >>> merged({"prior": {"blocks": 2}}, {"prior": {"name": "coupling", "blocks": 4}})
        {'prior': {'name': 'coupling', 'blocks': 2}}
    """
    named = {*KINDS, RATE_SCHEDULE}
    first = {k: {"name": v} if k in named and isinstance(v, str) else v for k, v in first.items()}
    found: dict[str, Any] = dict(second)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in first:
            found.pop(other, None)
    for key, value in first.items():
        below = found.get(key)
        if isinstance(below, str) and isinstance(value, Mapping):
            below = {"name": below}
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            name = below.get("name", default_of(key))
            if value.get("name", name) == name:
                value = merged(value, below)
        found[key] = value
    return found
