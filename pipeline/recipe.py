"""What a job supplies: decode, feeds, rows; and the recipe that a signature gives for free."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Reject
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import (
    IdSpec,
    InputSpec,
    ModelFiles,
    ModelSpec,
    OutputSpec,
    Signature,
    Tensor,
)
from pipeline.ragged import Ragged
from pipeline.schema import ITEMS, SCORES, output_fields, pass_through_fields

TOMBSTONE = ("Tombstone", "the record has no value (a tombstone), nothing can be scored")


class Sized(Protocol):
    """What stands for the accepted records of a batch, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Decoded:
    """What `decode` made of a batch's values.

    `accepted` are the row numbers (int64, ascending) that `events` stands for, `rejects` name the
    other rows: together they are all rows, each once. `event_time` is int64 µs since the epoch
    for each accepted row, or None where Kafka's timestamp counts.
    """

    events: Sized
    accepted: npt.NDArray[np.int64]
    rejects: tuple[Reject, ...]
    event_time: npt.NDArray[np.int64] | None = None


# Takes the values of a batch's records, Arrow binary `[rows]`, null where a record has none.
Decode = Callable[[pa.Array], Decoded]
# What a model is fed by name: an array, or lists of indices that a ranking makes arrays of.
Feed = npt.NDArray[Any] | Ragged


@dataclass(frozen=True, slots=True)
class Recipe:
    """Three functions, and the Arrow fields of the job's own columns.

    `decode` turns the values of a batch into events. `feeds` gives the model's inputs, and `rows`
    the columns named in `fields`; their first axis is `len(events)`. All are pure, and called with
    slices of a batch's events where a whole batch failed. An exception of theirs rejects the
    record that it comes from.
    """

    decode: Decode
    feeds: Callable[[Any], Mapping[str, Feed]]
    rows: Callable[[Any, dict[str, Any]], Mapping[str, Any]]
    fields: tuple[pa.Field, ...]


Maker = Callable[[ModelFiles, Signature], Recipe]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a decoder must find in each event, for the recipe made of a signature."""

    inputs: tuple[tuple[InputSpec, Tensor], ...]
    pass_through: tuple[pa.Field, ...] = ()
    event_time: str | None = None
    extra_fields: str = "ignore"
    ids: tuple[IdSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Events:
    """Decoded events as columns: the model's inputs, and what passes through to the rows.

    `ids` are indices of the model's vocabularies; an id that is no list is a list of one.
    """

    size: int
    feeds: dict[str, npt.NDArray[Any]]
    columns: dict[str, list[Any]]
    ids: dict[str, Ragged] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(
            size=len(range(*rows.indices(self.size))),
            feeds={name: values[rows] for name, values in self.feeds.items()},
            columns={name: values[rows] for name, values in self.columns.items()},
            ids={name: values[rows] for name, values in self.ids.items()},
        )


Decoder = Callable[[Needs], Decode]


def signature_recipe(
    spec: ModelSpec,
    signature: Signature,
    pass_through: Mapping[str, Any],
    decoder: Decoder,
    event_time: str | None = None,
) -> Recipe:
    """The recipe of any ONNX model whose model.yaml agrees with its signature.

    `decoder` comes from the table by `input.format`. Raises ConfigInvalid for types of
    `pass_through` that are not known, and where one field is asked for in two ways.
    """
    passed = pass_through_fields(pass_through)
    inputs = tuple((one, signature.inputs[one.name]) for one in spec.inputs)
    decode = decoder(Needs(inputs, passed, event_time, spec.extra_fields, spec.ids))

    def feeds(events: Events) -> dict[str, Feed]:
        return {**events.feeds, **events.ids}

    def rows(events: Events, outputs: dict[str, Any]) -> dict[str, Any]:
        columns: dict[str, Any] = dict(events.columns)
        for output in spec.outputs:
            columns[output.column] = _column(output, outputs[output.name])
        if spec.ranking is not None:
            columns |= {name: outputs[name] for name in (ITEMS, SCORES)}
        if spec.threshold is not None:
            columns[spec.threshold.name] = (
                np.asarray(columns[spec.threshold.column]) >= spec.threshold.at_least
            )
        return columns

    return Recipe(decode, feeds, rows, (*passed, *output_fields(spec, signature)))


def _column(output: OutputSpec, values: Any) -> Any:
    """One output as a column: `[batch]`, `[batch, width]`, or a list of dicts."""
    if isinstance(values, list):
        return values if output.pick is None else [one[output.pick] for one in values]
    flat = values.reshape(len(values), -1) if values.size else values.reshape(len(values), 1)
    if output.pick is not None:
        return flat[:, output.pick]
    return flat[:, 0] if flat.shape[1] == 1 else flat


def each(function: Callable[[bytes], Any]) -> Decode:
    """Lift `function(value) -> event`, which raises ValueError to reject, into a `decode`.

    A record without a value is rejected without asking it.
    """

    def decode(values: pa.Array) -> Decoded:
        events, accepted, rejects = [], [], []
        for row, value in enumerate(values.to_pylist()):
            if value is None:
                rejects.append(Reject(row, "decode", *TOMBSTONE))
                continue
            try:
                events.append(function(value))
            except ValueError as failure:
                rejects.append(Reject(row, "decode", type(failure).__name__, str(failure)))
            else:
                accepted.append(row)
        return Decoded(events, np.array(accepted, np.int64), tuple(rejects))

    return decode


def find_maker(path: str) -> Maker:
    """The user's function at `module:attribute`, which makes a recipe of a model.

    Raises ConfigInvalid where there is no such function.
    """
    module, colon, attribute = path.partition(":")
    way_out = "Write module:function, importable from the folder that the job is started in"
    if not (module and colon and attribute):
        raise ConfigInvalid([Mistake("recipe", path, "is no import path", way_out)])
    try:
        maker = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as failure:
        mistake = Mistake("recipe", path, f"can't be imported: {failure}", way_out)
        raise ConfigInvalid([mistake]) from failure
    if not callable(maker):
        mistake = Mistake("recipe", path, f"is a {type(maker).__name__}, no function", way_out)
        raise ConfigInvalid([mistake])
    found: Maker = maker
    return found


def make_recipe(maker: Maker, files: ModelFiles, signature: Signature) -> Recipe:
    """What the user's function makes, once in each replica. Raises ConfigInvalid if no Recipe."""
    recipe: object = maker(files, signature)
    if not isinstance(recipe, Recipe):
        way_out = "Give a function (ModelFiles, Signature) -> pipeline.recipe.Recipe"
        problem = f"gives a {type(recipe).__name__}"
        raise ConfigInvalid([Mistake("recipe", maker.__name__, problem, way_out)])
    return recipe
