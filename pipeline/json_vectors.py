"""Read whole arrays of numbers with simdjson, which makes no Python float of them."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import simdjson

from pipeline.json_structs import Parsed, Reader, in_shape, struct_reader
from pipeline.json_types import EventType
from pipeline.model import FLOATS, NUMPY_TYPES
from pipeline.recipe import Events, Needs

# RuntimeError is its word for nesting too deep, AttributeError ours for what is no array.
_FAILURES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)


def only_vectors(needs: Needs) -> bool:
    """Whether inputs are arrays of floats and all else is scalar, each one a field of its own."""
    times = [] if needs.event_time is None else [needs.event_time]
    dotted = [*(spec.path for one, _ in needs.inputs for spec in one.fields), *times]
    names = [*dotted, *(field.name for field in needs.pass_through)]
    return (
        all(
            not one.stacked and tensor.kind in FLOATS and (tensor.width or 1) > 1
            for one, tensor in needs.inputs
        )
        and not any("." in path for path in dotted)
        and not any(pa.types.is_nested(field.type) for field in needs.pass_through)
        and len(set(names)) == len(names)
        and needs.extra_fields == "ignore"
    )


def vector_reader(needs: Needs, event: EventType) -> Reader:
    """Make the reader for what `only_vectors` is true of.

    It reads what is simple and right; the reader for every kind of field has the word on the rest.
    """
    vectors = [one.fields[0].path for one, _ in needs.inputs]
    passed = [field.name for field in needs.pass_through]
    scalars = passed if needs.event_time is None else [*passed, needs.event_time]
    annotations = {name: event.fields[name].annotation() for name in scalars}
    read_structs = struct_reader(needs, event)

    def read(values: Sequence[bytes]) -> Parsed:
        if not _flat(values, len(vectors)):
            return read_structs(values)
        buffers, columns, doubted = _gathered(values, vectors, scalars)
        feeds = {}
        for (one, tensor), buffer in zip(needs.inputs, buffers.values(), strict=True):
            matrix, wrong = _matrix(buffer, tensor.width or 1, NUMPY_TYPES[tensor.kind])
            feeds[one.name] = in_shape(matrix, tensor)
            doubted |= wrong
        for name, column in columns.items():
            columns[name], wrong = _converted(column, annotations[name])
            doubted |= wrong
        moments = None if needs.event_time is None else columns.pop(needs.event_time)
        parsed = Parsed(Events(len(values), feeds, columns), moments, {})
        if doubted:
            rows = sorted(doubted)
            _put(parsed, rows, read_structs([values[row] for row in rows]))
        return parsed

    return read


def _flat(values: Sequence[bytes], arrays: int) -> bool:
    """Whether no value has brackets beside those of its arrays: simdjson flattens inner ones."""
    return max(map(bytes.count, values, repeat(b"[")), default=0) <= arrays


def _gathered(
    values: Sequence[bytes], vectors: Sequence[str], scalars: Sequence[str]
) -> tuple[dict[str, list[bytes]], dict[str, list[Any]], set[int]]:
    """The vectors as the bytes of doubles, the scalars, and the rows that could not be read."""
    buffers: dict[str, list[bytes]] = {name: [] for name in vectors}
    columns: dict[str, list[Any]] = {name: [] for name in scalars}
    unread = set()
    # One loop without zip or keyword: each costs as much as parsing ten numbers.
    parse: Callable[[bytes], Any] = simdjson.Parser().parse
    takes = [(name, buffer.append) for name, buffer in buffers.items()]
    gets = [(name, column.append) for name, column in columns.items()]
    for row, value in enumerate(values):
        try:
            document = parse(value)
            for name, take in takes:
                take(bytes(document[name].as_buffer(of_type="d")))
            for name, take in gets:
                take(document.get(name))
        except _FAILURES:
            unread.add(row)
            for buffer in buffers.values():
                buffer[row:] = [b""]
            for column in columns.values():
                column[row:] = [None]
        # The parser refuses another record while anything of this one lives.
        document = None
    return buffers, columns, unread


def _matrix(buffer: list[bytes], width: int, kind: Any) -> tuple[np.ndarray[Any, Any], set[int]]:
    """The vectors as `[batch, width]`, and the rows of another width or out of range."""
    wrong = set()
    if set(map(len, buffer)) - {8 * width}:
        wrong = {row for row, vector in enumerate(buffer) if len(vector) != 8 * width}
        for row in wrong:
            buffer[row] = bytes(8 * width)
    matrix = np.frombuffer(b"".join(buffer)).reshape(len(buffer), width)
    limit = float(np.finfo(kind).max)
    if max(matrix.max(initial=0), -matrix.min(initial=0)) > limit:
        wrong |= set(np.flatnonzero((np.abs(matrix) > limit).any(axis=1)).tolist())
    with np.errstate(over="ignore"):
        return matrix.astype(kind), wrong


def _converted(column: list[Any], kind: Any) -> tuple[list[Any], set[int]]:
    """The column with its types checked, and the rows (None there) where they are wrong."""
    try:
        return msgspec.convert(column, list[kind]), set()
    except (msgspec.ValidationError, OverflowError):
        wrong = set()
    kept: list[Any] = []
    for row, value in enumerate(column):
        try:
            kept.append(msgspec.convert(value, kind))
        except (msgspec.ValidationError, OverflowError):
            kept.append(None)
            wrong.add(row)
    return kept, wrong


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
