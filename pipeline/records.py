"""Records to produce, as key and JSON value: from Parquet, NDJSON or a generator of dicts."""

import importlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigInvalid, Mistake

Record: TypeAlias = tuple[bytes | None, bytes]
GENERATOR = "generator:"
NDJSON = (".ndjson", ".jsonl", ".json")
ROWS = 8192
# What JSON has no type for, such as a UUID or a complex number, goes as its text.
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def read(source: str, key: str | None = None, drop: Collection[str] = ()) -> Iterator[Record]:
    """Records of `source`: a .parquet or .ndjson file, or `generator:module:function`.

    `key` names the field whose text is the record's key, and `drop` fields to leave out.
    Raises ConfigInvalid, at the first record at the latest, where the source can't be read.
    """
    if source.startswith(GENERATOR):
        return _generated(source, key, drop)
    path = Path(source)
    if path.suffix == ".parquet":
        return _parquet(path, key, drop)
    if path.suffix in NDJSON:
        return _ndjson(path, key, drop)
    way_out = "Name a .parquet or .ndjson file, or generator:module:function"
    raise _wrong("source", source, "is of no known kind", way_out)


def _wrong(setting: str, value: object, problem: str, way_out: str) -> ConfigInvalid:
    return ConfigInvalid([Mistake(setting, value, problem, way_out)])


def _text(value: Any) -> bytes | None:
    """A key: a text as it is, anything else as JSON writes it."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else _ENCODER.encode(value)


# -- Parquet -------------------------------------------------------------------------------------


def _parquet(path: Path, key: str | None, drop: Collection[str]) -> Iterator[Record]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in [*drop, *([key] if key else [])] if name not in names]
            if missing:
                way_out = f"It has {', '.join(names)}"
                raise _wrong("--key or --drop", missing, "is no column of the file", way_out)
            kept = [name for name in names if name not in drop]
            wanted = [name for name in names if name in kept or name == key]
            for batch in file.iter_batches(ROWS, columns=wanted):
                yield from _rows(batch, kept, key)
    except (OSError, pa.ArrowException) as problem:
        way_out = "Name a Parquet file"
        raise _wrong("source", str(path), f"cannot be read: {problem}", way_out) from None


def _rows(batch: pa.RecordBatch, kept: list[str], key: str | None) -> Iterator[Record]:
    fields = [f"f{number}" for number in range(len(kept))]
    # A struct of the columns encodes three times as fast as a dict, whatever they are called.
    row = msgspec.defstruct("Row", fields, rename=dict(zip(fields, kept, strict=True)), gc=False)
    columns = {name: _values(batch.column(name)) for name in batch.schema.names}
    values = map(_ENCODER.encode, map(row, *(columns[name] for name in kept)))
    keys = map(_text, columns[key]) if key else [None] * batch.num_rows
    return zip(keys, values, strict=True)


def _values(column: pa.Array) -> list[Any]:
    """Python values; a float32 becomes the double whose shortest text is the float32's.

    Encoded as it is, 0.1 would go out as 0.10000000149011612: the same float32, at twice the size.
    """
    if (texts := _replaced(column.type, pa.float32(), pa.string())) != column.type:
        column = column.cast(texts).cast(_replaced(column.type, pa.float32(), pa.float64()))
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if plain and column.null_count == 0:
        return list(column.to_numpy(zero_copy_only=False).tolist())
    return list(column.to_pylist())


def _replaced(kind: pa.DataType, old: pa.DataType, new: pa.DataType) -> pa.DataType:
    """The type with `old` replaced by `new`, in lists and structs too."""
    if kind == old:
        return new
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_replaced(kind.value_type, old, new), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_replaced(kind.value_type, old, new))
    if pa.types.is_large_list(kind):
        return pa.large_list(_replaced(kind.value_type, old, new))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_replaced(field.type, old, new)) for field in kind])
    return kind


# -- NDJSON and generators -----------------------------------------------------------------------


def _ndjson(path: Path, key: str | None, drop: Collection[str]) -> Iterator[Record]:
    def lines() -> Iterator[tuple[str, bytes]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number} of {path}", line.strip()

    try:
        if not key and not drop:
            yield from ((None, line) for _, line in lines())
            return
        for where, line in lines():
            try:
                row = msgspec.json.decode(line)
            except msgspec.DecodeError as problem:
                way_out = "Write one JSON object a line"
                raise _wrong("source", where, f"is no JSON: {problem}", way_out) from None
            yield _record(row, where, key, drop, line)
    except OSError as problem:
        text = f"cannot be read: {problem.strerror}"
        raise _wrong("source", str(path), text, "Name an NDJSON file") from None


def _generated(source: str, key: str | None, drop: Collection[str]) -> Iterator[Record]:
    for row in _rows_of(source):
        yield _record(row, source, key, drop, None)


def _rows_of(source: str) -> Iterable[Any]:
    module, _, name = source.removeprefix(GENERATOR).partition(":")
    way_out = "Write generator:module:function, importable from here; it yields dicts"
    # The command stands in the environment's folder, and the module in the current one.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise _wrong("source", source, f"can't be imported: {problem}", way_out) from problem
    rows = function() if callable(function) else function
    if not isinstance(rows, Iterable):
        raise _wrong("source", source, f"gives a {type(rows).__name__}", way_out)
    return rows


def _record(
    row: Any, where: str, key: str | None, drop: Collection[str], encoded: bytes | None
) -> Record:
    if not isinstance(row, Mapping):
        text = json.dumps(row, default=str)[:80]
        raise _wrong("source", where, f"is no object: {text}", "Give one object a record")
    if drop:
        kept: Any = {name: value for name, value in row.items() if name not in drop}
    else:
        kept = row
    value = _ENCODER.encode(kept) if encoded is None or drop else encoded
    return _text(row.get(key)) if key else None, value
