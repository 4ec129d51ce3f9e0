"""Read flat JSON events straight into columns, by the compiled part where it was built.

It reads what is simple and right; `pipeline.json_structs` has the word on the rest, and does all of
it where nothing is compiled.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ids import id_type
from pipeline.json_structs import Parsed, Reader, in_shape, struct_reader
from pipeline.json_types import EventType, input_type
from pipeline.model import NUMPY_TYPES, Choice, IdSpec, InputSpec, Tensor
from pipeline.recipe import Events, Needs

if TYPE_CHECKING:
    from pipeline._scan import Target

try:
    from pipeline._scan import scan
except ImportError:
    COMPILED = False
else:
    COMPILED = True

_LETTERS = {"float": "f", "double": "d", "int32": "i", "int64": "q", "bool": "?"}
_LARGEST = {
    "float": float(np.finfo(np.float32).max),
    "double": sys.float_info.max,
    "int32": float(2**31 - 1),
    "int64": float(2**63 - 1),
    "bool": 1.0,
}


def is_flat(needs: Needs) -> bool:
    """Whether all that is needed are numbers, bools, arrays of them, and single strings.

    Each must be a field of the event itself, not of an object in it.
    """
    paths = [spec.path for one, _ in needs.inputs for spec in one.fields]
    paths += [spec.field.path for spec in needs.ids]
    paths += [] if needs.event_time is None else [needs.event_time]
    return (
        all(tensor.kind in _LETTERS for _, tensor in needs.inputs)
        and not any(one.many and pa.types.is_string(one.vocabulary.ids.type) for one in needs.ids)
        and not any("." in path for path in paths)
        and not any(pa.types.is_nested(field.type) for field in needs.pass_through)
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """A field as one array of values or of their ends, and one of what is there.

    Unless `required` it may be absent or null; else `missing` and `null` stand in, or None.
    """

    name: str
    letter: str
    dtype: Any
    largest: float
    lenient: bool = False
    required: bool = False
    missing: bytes | None = None
    null: bytes | None = None

    def read(self, size: int) -> "_Read":
        return _Read(self, np.zeros(size, self.dtype), np.zeros(size, np.uint8))


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of a column; `values` and `present` are `[rows]`."""

    column: _Column
    values: npt.NDArray[Any]
    present: npt.NDArray[np.uint8]

    def target(self) -> "Target":
        one = self.column
        return (
            *(one.name, one.letter, -1, one.largest, self.values, 0, self.values.itemsize),
            *(None if one.required else self.present, one.missing, one.null, one.lenient),
        )


def _column(name: str, kind: pa.DataType, *, lenient: bool = False) -> _Column:
    if pa.types.is_string(kind):
        return _Column(name, "s", np.int64, 0.0, lenient)
    if pa.types.is_boolean(kind):
        return _Column(name, "?", np.bool_, 1.0, lenient)
    if pa.types.is_floating(kind):
        # Kept as it came: a prediction says 0.1 though Parquet's float32 is a little more.
        narrow = kind == pa.float32()
        return _Column(name, "d", np.float64, _LARGEST["float" if narrow else "double"], lenient)
    return _Column(name, "q", np.int64, float(2 ** (kind.bit_width - 1) - 1), lenient)


def _id_column(spec: IdSpec) -> _Column:
    """The column of ids, whose choices are ids or lists of them."""
    field, required = spec.field, not spec.optional
    if pa.types.is_string(spec.vocabulary.ids.type):
        # A text that stands in is left to the other reader.
        return _Column(field.path, "s", np.int64, 0.0, required=required)
    choices = [None if one is Choice.REJECT else one for one in (field.missing, field.null)]
    if spec.many:
        # An empty list is nothing but its end, which is written after what stands in.
        ends = (bytes(8) if one == [] else None for one in choices)
        return _Column(field.path, "l", np.int64, _LARGEST["int64"], False, required, *ends)
    numbers = (None if one is None else np.int64(one).tobytes() for one in choices)
    return _Column(field.path, "q", np.int64, _LARGEST["int64"], False, required, *numbers)


def flat_reader(needs: Needs, event: EventType) -> Reader:
    """Make the reader for what `is_flat` is true of."""
    read_structs = struct_reader(needs, event)
    columns = [_id_column(spec) for spec in needs.ids]
    columns += [_column(field.name, field.type) for field in needs.pass_through]
    if needs.event_time is not None:
        # Milliseconds or a text: each column holds what the other does not.
        columns += [
            _column(needs.event_time, kind, lenient=True) for kind in (pa.int64(), pa.string())
        ]
    inputs = [_input_targets(one, tensor) for one, tensor in needs.inputs]
    forbid_unknown = needs.extra_fields == "reject"

    def read(values: pa.Array) -> Parsed:
        size = len(values)
        reads = [column.read(size) for column in columns]
        feeds, targets = {}, [one.target() for one in reads]
        for (one, tensor), made in zip(needs.inputs, inputs, strict=True):
            matrix, places = made(size)
            feeds[one.name] = in_shape(matrix, tensor)
            targets += places
        # Fields of one name side by side.
        order = sorted(range(len(targets)), key=lambda i: targets[i][0])
        texts = (values.offset, *values.buffers()[1:])
        doubted, pieces = scan(size, texts, [targets[i] for i in order], forbid_unknown)
        piece_of = dict(zip(order, pieces, strict=True))
        held = [(one, piece_of[i]) for i, one in enumerate(reads)]
        found = zip(needs.ids, held, strict=False)
        ids = {spec.name: _as_ids(spec, *one) for spec, one in found}
        passed = [_as_list(*one) for one in held[len(ids) :]]
        moments = None
        if needs.event_time is not None:
            *passed, counted, written = passed
            moments = [a if a is not None else b for a, b in zip(counted, written, strict=True)]
            doubted = sorted({*doubted, *(i for i, one in enumerate(moments) if one is None)})
        names = (field.name for field in needs.pass_through)
        events = Events(size, feeds, dict(zip(names, passed, strict=True)))
        parsed = Parsed(events, moments, {}, ids)
        if doubted:
            _put(parsed, doubted, read_structs(values.take(pa.array(doubted))))
        return parsed

    return read


def _input_targets(
    one: InputSpec, tensor: Tensor
) -> Callable[[int], tuple[npt.NDArray[Any], list["Target"]]]:
    """Make the function from a number of rows to an input's matrix and its targets."""
    dtype, length = NUMPY_TYPES[tensor.kind], input_type(one, tensor).length
    elements = -1 if length is None else length
    letter, largest = _LETTERS[tensor.kind], _LARGEST[tensor.kind]
    width = len(one.fields) if one.stacked else length or 1
    step = np.dtype(dtype).itemsize
    choices = [
        tuple(_chosen(choice, length, dtype) for choice in (spec.missing, spec.null))
        for spec in one.fields
    ]

    def make(size: int) -> tuple[npt.NDArray[Any], list["Target"]]:
        matrix = np.zeros((size, width), dtype)
        targets: list[Target] = [
            (
                spec.path,
                letter,
                elements,
                largest,
                matrix,
                i * step,
                width * step,
                None,
                *both,
                False,
            )
            for i, (spec, both) in enumerate(zip(one.fields, choices, strict=True))
        ]
        return matrix, targets

    return make


def _chosen(choice: Any, length: int | None, dtype: Any) -> bytes | None:
    """The bytes of what stands in for a field, None where the record is refused."""
    if choice is Choice.REJECT:
        return None
    return np.full(length or 1, choice, dtype).tobytes()


def _as_list(one: _Read, text: bytes) -> list[Any]:
    """The column as Python values."""
    if one.column.letter == "s":
        made: list[Any] = _strings(one.values, text).to_pylist()
    else:
        made = one.values.tolist()
    for row in np.flatnonzero(one.present == 0).tolist():
        made[row] = None
    return made


def _as_ids(spec: IdSpec, one: _Read, piece: bytes) -> pa.Array:
    """The column of `id_type`."""
    if spec.many:
        items = np.frombuffer(piece, np.int64)
        ends = pa.array(np.append(0, one.values // items.itemsize), pa.int32())
        absent = pa.array(one.present == 0) if spec.optional else None
        return pa.ListArray.from_arrays(ends, pa.array(items), mask=absent)
    if one.column.letter == "s":
        return _strings(one.values, piece).cast(id_type(spec))
    return pa.array(one.values)


def _strings(ends: npt.NDArray[np.int64], text: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(np.append(0, ends)), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.large_string(), len(ends), buffers)


def _put(parsed: Parsed, rows: list[int], other: Parsed) -> None:
    """Put another reader's answers in the place of `rows`."""
    for name, feed in parsed.events.feeds.items():
        feed[rows] = other.events.feeds[name]
    for name, column in parsed.events.columns.items():
        _replace(column, rows, other.events.columns[name])
    if parsed.moments is not None and other.moments is not None:
        _replace(parsed.moments, rows, other.moments)
    for name, own in parsed.ids.items():
        places = np.arange(len(own))
        places[rows] = len(own) + np.arange(len(rows))
        parsed.ids[name] = pa.concat_arrays([own, other.ids[name]]).take(pa.array(places))
    parsed.failed.update((rows[i], reason) for i, reason in other.failed.items())


def _replace(column: list[Any], rows: list[int], values: list[Any]) -> None:
    for row, value in zip(rows, values, strict=True):
        column[row] = value
