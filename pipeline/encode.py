"""Predictions as JSON: one object a row, by the compiled part where it was built."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from pipeline._encode import Column

try:
    from pipeline._encode import encode as _encode
except ImportError:
    COMPILED = False
else:
    COMPILED = True

Encode: TypeAlias = Callable[[pa.RecordBatch], pa.Array]

_LETTERS = {
    pa.int8(): "b",
    pa.int16(): "h",
    pa.int32(): "i",
    pa.int64(): "q",
    pa.float32(): "f",
    pa.float64(): "d",
    pa.bool_(): "?",
    pa.string(): "s",
}


def prediction_encoder(
    fields: Sequence[pa.Field], name: str, version: str, compiled: bool = COMPILED
) -> Encode:
    """Make the function from rows to one prediction each, Arrow binary `[rows]`.

    A prediction names its record (`source`), has the columns `fields`, and names its model. Both
    ways of writing, `compiled` or not, mean the same to any reader of JSON.
    """
    if compiled and all(_is_simple(field.type) for field in fields):
        return _compiled_encoder(fields, name, version)
    return _struct_encoder([field.name for field in fields], name, version)


def _binary(offsets: Any, text: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) // 4 - 1, buffers)


# -- compiled ------------------------------------------------------------------------------------


def _is_simple(kind: pa.DataType) -> bool:
    return kind in _LETTERS or (pa.types.is_list(kind) and _is_simple(kind.value_type))


def _compiled_encoder(fields: Sequence[pa.Field], name: str, version: str) -> Encode:
    names = [msgspec.json.encode(field.name) for field in fields]
    model = msgspec.json.encode({"model": name, "model_version": version})
    literals = [b'{"source":[', b",", *(b",%s:" % text for text in names), b"," + model[1:]]
    # The first column, or else the model, closes the source's array.
    literals[2] = b"]" + literals[2]

    source = [("partition", pa.int32()), ("offset", pa.int64())]
    columns = [*source, *((field.name, field.type) for field in fields)]
    written = [(column, _letters(kind)) for column, kind in columns]

    def predictions(rows: pa.RecordBatch) -> pa.Array:
        held = [_column(rows.column(column), letters) for column, letters in written]
        return _binary(*_encode(rows.num_rows, literals, held))

    return predictions


def _letters(kind: pa.DataType) -> str:
    """One for each level of lists, and that of what they hold."""
    return "l" + _letters(kind.value_type) if pa.types.is_list(kind) else _LETTERS[kind]


def _column(array: pa.Array, letters: str) -> "Column":
    letter, below = letters[0], letters[1:]
    if below:
        valid, offsets = array.buffers()[:2]
        return letter, array.offset, valid, offsets, _column(array.values, below)
    valid, values, *rest = array.buffers()
    return letter, array.offset, valid, values, rest[0] if rest else None


# -- in Python -----------------------------------------------------------------------------------


def _struct_encoder(columns: Sequence[str], name: str, version: str) -> Encode:
    attributes = [f"f{i}" for i in range(len(columns))]
    prediction = msgspec.defstruct(
        "Prediction",
        [
            ("source", Any),
            *((attribute, Any) for attribute in attributes),
            ("model", str, name),
            ("model_version", str, version),
        ],
        rename=dict(zip(attributes, columns, strict=True)),
        gc=False,
    )
    encode = msgspec.json.Encoder().encode_lines

    def predictions(rows: pa.RecordBatch) -> pa.Array:
        partitions, offsets = (rows.column(one).to_pylist() for one in ("partition", "offset"))
        sources = zip(partitions, offsets, strict=True)
        plain = (_plain(rows.column(column)) for column in columns)
        lines = encode(list(map(prediction, sources, *plain)))
        # msgspec escapes newlines in strings, so each one ends a line.
        ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
        cuts = np.concatenate([[0], ends - np.arange(len(ends))]).astype(np.int32)
        return _binary(cuts.tobytes(), lines.replace(b"\n", b""))

    return predictions


def _plain(column: pa.Array) -> list[Any]:
    """A column as Python values for JSON, float32 as the shortest decimal that gives it back."""
    kind = column.type
    plain: list[Any]
    if pa.types.is_list(kind):
        flat = _plain(column.values)
        plain = [flat[start:stop] for start, stop in pairwise(column.offsets.to_pylist())]
    elif kind == pa.float32():
        values = column.fill_null(0).to_numpy()
        exact = values.astype(np.float64)
        short = np.round(exact, 8)
        plain = np.where(short.astype(np.float32) == values, short, exact).tolist()
    elif pa.types.is_map(kind):
        plain = [dict(one or ()) for one in column.to_pylist()]
    else:
        return list(column.to_pylist())
    if column.null_count:
        for row in np.flatnonzero(column.is_null()).tolist():
            plain[row] = None
    return plain
