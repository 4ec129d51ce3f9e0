"""Read flat JSON events straight into columns, by the compiled part where it was built.

It reads what is simple and right; `pipeline.json_structs` has the word on the rest, and does all of
it where nothing is compiled.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.json_structs import Parsed, Reader, in_shape, struct_reader
from pipeline.json_types import EventType, input_type
from pipeline.model import NUMPY_TYPES, Choice, InputSpec, Tensor
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
    """Whether all that is needed are numbers, bools, arrays of them, and strings to pass through.

    Each must be a field of the event itself, not of an object in it.
    """
    if needs.ids:
        return False
    paths = [spec.path for one, _ in needs.inputs for spec in one.fields]
    paths += [] if needs.event_time is None else [needs.event_time]
    return (
        all(tensor.kind in _LETTERS for _, tensor in needs.inputs)
        and not any("." in path for path in paths)
        and not any(pa.types.is_nested(field.type) for field in needs.pass_through)
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """A field that may be absent or null, as one array of values and one of what is there."""

    name: str
    letter: str
    dtype: Any
    largest: float
    lenient: bool

    def target(self, values: npt.NDArray[Any], present: npt.NDArray[np.uint8]) -> "Target":
        step = values.itemsize
        return (
            *(self.name, self.letter, -1, self.largest, values, 0, step),
            *(present, None, None, self.lenient),
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


def flat_reader(needs: Needs, event: EventType) -> Reader:
    """Make the reader for what `is_flat` is true of."""
    read_structs = struct_reader(needs, event)
    columns = [_column(field.name, field.type) for field in needs.pass_through]
    if needs.event_time is not None:
        # Milliseconds or a text: each column holds what the other does not.
        columns += [
            _column(needs.event_time, kind, lenient=True) for kind in (pa.int64(), pa.string())
        ]
    inputs = [_input_targets(one, tensor) for one, tensor in needs.inputs]
    forbid_unknown = needs.extra_fields == "reject"

    def read(values: Sequence[bytes]) -> Parsed:
        size = len(values)
        feeds, targets = {}, []
        for (one, tensor), made in zip(needs.inputs, inputs, strict=True):
            matrix, places = made(size)
            feeds[one.name] = in_shape(matrix, tensor)
            targets += places
        held = [(np.zeros(size, column.dtype), np.zeros(size, np.uint8)) for column in columns]
        targets += [column.target(*arrays) for column, arrays in zip(columns, held, strict=True)]
        # A stable sort: fields of one name side by side.
        doubted, texts = scan(list(values), sorted(targets, key=lambda t: t[0]), forbid_unknown)
        passed = _lists(columns, held, texts)
        moments = None
        if needs.event_time is not None:
            *passed, counted, written = passed
            moments = [a if a is not None else b for a, b in zip(counted, written, strict=True)]
            doubted = sorted({*doubted, *(i for i, one in enumerate(moments) if one is None)})
        names = (field.name for field in needs.pass_through)
        parsed = Parsed(Events(size, feeds, dict(zip(names, passed, strict=True))), moments, {})
        if doubted:
            _put(parsed, doubted, read_structs([values[row] for row in doubted]))
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


def _lists(
    columns: Sequence[_Column],
    held: Sequence[tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]],
    texts: Sequence[bytes],
) -> list[list[Any]]:
    """The columns as Python values; `texts` belong to those of strings, by name."""
    by_name = sorted(column.name for column in columns if column.letter == "s")
    text_of = dict(zip(by_name, texts, strict=True))
    lists = []
    for column, (values, present) in zip(columns, held, strict=True):
        text = text_of.get(column.name) if column.letter == "s" else None
        made = values.tolist() if text is None else _strings(values, text)
        for row in np.flatnonzero(present == 0).tolist():
            made[row] = None
        lists.append(made)
    return lists


def _strings(ends: npt.NDArray[np.int64], text: bytes) -> list[Any]:
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return list(pa.Array.from_buffers(pa.large_string(), len(ends), buffers).to_pylist())


def _put(parsed: Parsed, rows: list[int], other: Parsed) -> None:
    """Put another reader's answers in the place of `rows`."""
    for name, feed in parsed.events.feeds.items():
        feed[rows] = other.events.feeds[name]
    for name, column in parsed.events.columns.items():
        _replace(column, rows, other.events.columns[name])
    if parsed.moments is not None and other.moments is not None:
        _replace(parsed.moments, rows, other.moments)
    parsed.failed.update((rows[i], reason) for i, reason in other.failed.items())


def _replace(column: list[Any], rows: list[int], values: list[Any]) -> None:
    for row, value in zip(rows, values, strict=True):
        column[row] = value
