"""What a model is to us: its signature, what model.yaml says, and the files of one version."""

import enum
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

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


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What travels to a replica: successors get the same bytes."""

    spec: ModelSpec
    model: bytes = field(repr=False)
    name: str
    version: str
