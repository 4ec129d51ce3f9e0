"""What a model is to us: its signature, what model.yaml says, and the files of one version."""

import enum
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.vocabulary import Vocabulary

FLOATS = ("float", "double")
INTEGERS = ("int32", "int64")
KINDS = (*FLOATS, *INTEGERS, "bool", "string")
# Strings travel as Python objects, which is how ONNX Runtime takes and gives them.
NUMPY_TYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "int32": np.int32,
    "int64": np.int64,
    "bool": np.bool_,
    "string": np.object_,
}


class Choice(enum.Enum):
    """The choice that is no value: the record becomes a dead letter."""

    REJECT = "reject"


class Tensor(NamedTuple):
    """The type of an ONNX input or output; None in the shape is a free axis."""

    kind: str
    shape: tuple[int | None, ...]

    @property
    def width(self) -> int | None:
        """How many elements one record has, None where an axis beside the batch's is free."""
        known = [axis for axis in self.shape[1:] if axis is not None]
        return math.prod(known) if len(known) == len(self.shape[1:]) else None

    @property
    def keys(self) -> str | None:
        """The key type of a sequence of maps, as sklearn's converters make it; else None."""
        start = "sequence(map("
        return self.kind.removeprefix(start).split(",")[0] if start in self.kind else None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of the event, and what stands in for it where it is absent, null or mistyped."""

    path: str
    missing: Any = Choice.REJECT
    null: Any = Choice.REJECT
    invalid: Any = Choice.REJECT


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One ONNX input: fields stacked along the last axis, or one field that is the whole input."""

    name: str
    fields: tuple[FieldSpec, ...]
    stacked: bool


@dataclass(frozen=True, slots=True)
class IdSpec:
    """One field of the event that holds an id or, where `many`, a list of ids.

    `unknown` says what becomes of an id that the vocabulary lacks: drop (from a list), reject, or
    the index that stands for it. `empty` says whether a list without any id is kept or rejected.
    Where `optional`, an event without the list means all items.
    """

    name: str
    field: FieldSpec
    vocabulary: Vocabulary
    many: bool = False
    unknown: int | str = "reject"
    empty: str = "reject"
    optional: bool = False


class Form(enum.Enum):
    """How ids become an ONNX input; see docs/model-yaml.md."""

    INDEX = "index"
    PADDED = "padded"
    MASK = "mask"
    LENGTH = "length"
    MULTI_HOT = "multi_hot"
    EACH = "each"
    # What the ranking's settings ask of a graph that picks the best itself.
    BLOCKED = "blocked"
    K = "k"


@dataclass(frozen=True, slots=True)
class FormSpec:
    """One ONNX input that is made of the ids named `ids` (None for BLOCKED and K).

    `newest` bounds how many of a list count; `pad` is the index that fills up PADDED, on the left
    or on the right as `left` says.
    """

    name: str
    form: Form
    ids: str | None = None
    newest: int | None = None
    pad: int = 0
    left: bool = True


@dataclass(frozen=True, slots=True)
class RankingSpec:
    """Which output holds the scores of the items of `vocabulary`, and which ids rule them.

    Without `indices` an output of scores has a column for each index. With it the graph has picked
    the best: both outputs are `[batch, any]`. Where an input has the form EACH, there is one score
    for each candidate. `seen` and `candidates` name ids.
    """

    vocabulary: Vocabulary
    scores: str
    indices: str | None = None
    seen: str | None = None
    candidates: str | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One ONNX output and its column; `pick` is an index of a vector or a key of a map."""

    name: str
    column: str
    pick: int | str | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The bool column `name`: is `column` at least `at_least`?"""

    column: str
    at_least: float
    name: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model.yaml, read and found free of mistakes."""

    name: str
    version: str
    sha256: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    threshold: Threshold | None = None
    extra_fields: str = "ignore"
    ids: tuple[IdSpec, ...] = ()
    forms: tuple[FormSpec, ...] = ()
    ranking: RankingSpec | None = None

    @property
    def pairs(self) -> bool:
        """Whether the model scores one candidate at a time."""
        return any(one.form is Form.EACH for one in self.forms)

    @property
    def wanted_outputs(self) -> list[str]:
        """The ONNX outputs that are to be computed."""
        names = [one.name for one in self.outputs]
        if self.ranking is not None:
            names += [self.ranking.scores, *filter(None, [self.ranking.indices])]
        return names


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What travels to a replica: successors get the same bytes."""

    spec: ModelSpec
    model: bytes = field(repr=False)
    name: str
    version: str
