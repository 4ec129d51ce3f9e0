"""What a row says, in a form in which a prediction and its Parquet row are equal or are not.

A prediction's JSON is read back into the types of its row, so that a float of 32 bits is equal
where the decimal in the topic is one that means it.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schema import STANDARD

# (offset, key, model_name, model_version, then the job's own columns in the order of the schema).
Row: TypeAlias = tuple[Any, ...]

_STANDARD = {field.name for field in STANDARD}
_HEAD = ("offset", "key", "model_name", "model_version")
_encode = msgspec.msgpack.Encoder().encode


def own_fields(schema: pa.Schema) -> list[pa.Field]:
    """The job's own columns."""
    return [field for field in schema if field.name not in _STANDARD]


def of_table(table: pa.Table) -> list[Row]:
    """The rows of a chunk or of a Parquet file."""
    names = [*_HEAD, *(field.name for field in own_fields(table.schema))]
    return list(zip(*(_listed(table[name]) for name in names), strict=True))


def of_predictions(
    offsets: Sequence[int],
    keys: Sequence[bytes | None],
    predictions: Sequence[dict[str, Any]],
    schema: pa.Schema,
) -> list[Row | None]:
    """The rows that predictions say, None for one that does not have the schema's form."""
    fields = own_fields(schema)
    names = {field.name for field in fields} | {"source", "model", "model_version"}
    columns = [_column([one.get(f.name) for one in predictions], f.type) for f in fields]
    models = [[one.get(name) for one in predictions] for name in ("model", "model_version")]
    rows = zip(offsets, keys, *models, *columns, strict=True)
    return [
        row if prediction.keys() == names and _UNFIT not in row else None
        for prediction, row in zip(predictions, rows, strict=True)
    ]


_UNFIT = object()
_REFUSED = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


def _column(values: list[Any], kind: pa.DataType) -> list[Any]:
    """The column's values in the type of the row; `_UNFIT` where one has another type."""
    try:
        return _typed(values, kind)
    except _REFUSED:
        return [_one(value, kind) for value in values]


def _one(value: Any, kind: pa.DataType) -> Any:
    try:
        return _typed([value], kind)[0]
    except _REFUSED:
        return _UNFIT


def _typed(values: list[Any], kind: pa.DataType) -> list[Any]:
    if pa.types.is_map(kind):
        read = int if pa.types.is_integer(kind.key_type) else str
        values = [
            None if one is None else [(read(key), value) for key, value in one.items()]
            for one in values
        ]
    elif pa.types.is_binary(kind):
        values = [None if one is None else base64.b64decode(one) for one in values]
    elif pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return list(pa.array(values, pa.string()).cast(kind).to_pylist())
    return _listed(pa.array(values, kind))


def _listed(column: Any) -> list[Any]:
    """A column as Python values; numbers by numpy, which takes a tenth of the time."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return list(column.cast(kind.value_type).to_pylist())
    if column.null_count == 0 and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return list(column.to_numpy().tolist())
    return list(column.to_pylist())


def digests(rows: Sequence[Row | None]) -> npt.NDArray[np.uint64]:
    """A 64-bit digest of each row; their sums tell sets of rows apart (within one process)."""
    found = np.fromiter((hash(_encode(row)) for row in rows), np.int64, len(rows))
    return found.view(np.uint64)


def differences(schema: pa.Schema, expected: Row, found: Row) -> Iterator[str]:
    """What differs between two rows of one record, in words."""
    names = [*_HEAD, *(field.name for field in own_fields(schema))]
    for name, one, other in zip(names, expected, found, strict=True):
        if _encode(one) != _encode(other):
            yield f"{name} {_short(other)} instead of {_short(one)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
