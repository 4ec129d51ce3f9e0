"""Read any JSON events: each into a Struct, then all Structs apart, column by column."""

import math
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ids import id_type
from pipeline.json_repair import (
    PARSE_FAILURES,
    Reason,
    Rejected,
    Repair,
    Repaired,
    without_unreadable,
)
from pipeline.json_types import EventType, FieldType, passed_type
from pipeline.model import NUMPY_TYPES, Tensor
from pipeline.recipe import Events, Needs


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reader made of all values of a batch, and why some failed: those rows mean nothing.

    `moments` are event times as the events give them, None where none is asked for. `ids` are
    columns of ids as the events hold them, by the name of their `IdSpec`.
    """

    events: Events
    moments: list[Any] | None
    failed: dict[int, Reason]
    ids: dict[str, pa.Array] = field(default_factory=dict)


# A null is read as an empty value.
Reader: TypeAlias = Callable[[pa.Array], Parsed]


def struct_reader(needs: Needs, event: EventType) -> Reader:
    """Make the reader that takes every kind of field."""
    parse = msgspec.json.Decoder(event.struct).decode
    repair = Repair(needs, event)
    columns = _Columns(needs, event)
    moment = attrgetter(event.attribute(needs.event_time)) if needs.event_time else None

    def read(column: pa.Array) -> Parsed:
        values = [value or b"" for value in column.to_pylist()]
        records: list[Any] = []
        repaired: dict[int, Repaired] = {}
        failed: dict[int, Reason] = {}
        remaining = iter(without_unreadable(values))
        while len(records) < len(values):
            try:
                # What was parsed before a failure stays in the list.
                records.extend(map(parse, remaining))
                break
            except PARSE_FAILURES:
                row = len(records)
            try:
                repaired[row] = repair(values[row])
                records.append(repaired[row].record)
            except Rejected as rejected:
                failed[row] = rejected.reason
                records.append(event.blank())
        moments = None if moment is None else list(map(moment, records))
        ids = columns.ids(records)
        events = columns(records)
        for row, one in repaired.items():
            for name, value in one.columns.items():
                events.columns[name][row] = value
            if moments is not None:
                moments[row] = one.event_time
        return Parsed(events, moments, failed, ids)

    return read


class _Columns:
    """Makes columns of Structs, which it uses up."""

    def __init__(self, needs: Needs, event: EventType) -> None:
        self._floats = _Floats(event)
        self._inputs = [
            (one, tensor, [event.attribute(spec.path) for spec in one.fields])
            for one, tensor in needs.inputs
        ]
        self._ids = [(spec, event.attribute(spec.field.path)) for spec in needs.ids]
        self._passed = {field.name: event.attributes[field.name] for field in needs.pass_through}
        self._objects = {
            field.name: passed_type(field.type)
            for field in needs.pass_through
            if pa.types.is_struct(field.type)
        }

    def ids(self, records: list[Any]) -> dict[str, pa.Array]:
        """The ids, read before the call that uses the Structs up."""
        return {
            spec.name: pa.array(_values(records, path), id_type(spec)) for spec, path in self._ids
        }

    def __call__(self, records: list[Any]) -> Events:
        size = len(records)
        columns = {name: _values(records, path) for name, path in self._passed.items()}
        for name, tree in self._objects.items():
            columns[name] = [_only(tree, msgspec.to_builtins(value)) for value in columns[name]]
        others = {
            path: _values(records, path)
            for _, _, paths in self._inputs
            for path in paths
            if path not in self._floats.types
        }
        floats = self._floats(records)
        feeds = {}
        for one, tensor, paths in self._inputs:
            kind = NUMPY_TYPES[tensor.kind]
            matrix = np.empty((size, len(paths) if one.stacked else tensor.width or 1), kind)
            for i, path in enumerate(paths):
                values = floats[path] if path in floats else np.array(others[path], kind)
                if one.stacked:
                    matrix[:, i] = values
                else:
                    matrix[:] = values.reshape(matrix.shape)
            feeds[one.name] = in_shape(matrix, tensor)
        return Events(size, feeds, columns)


def _values(records: list[Any], path: str) -> list[Any]:
    return list(map(attrgetter(path), records))


def _only(tree: Any, value: Any) -> Any:
    """The part of an object that passes through, without what only the model reads."""
    if isinstance(tree, FieldType) or value is None:
        return value
    return {name: _only(node, value[name]) for name, node in tree.items()}


def in_shape(matrix: npt.NDArray[Any], tensor: Tensor) -> npt.NDArray[Any]:
    """`[batch, width]` in the shape that the model takes."""
    axes = list(tensor.shape[1:])
    if None in axes:
        known = math.prod(axis for axis in axes if axis is not None)
        axes[axes.index(None)] = matrix.shape[1] // known
    return matrix.reshape([len(matrix), *(axis or 0 for axis in axes)])


class _Floats:
    """The columns of all floats that every record has, by way of MessagePack.

    A Struct of floats encodes to the same length each time, with each float as 0xcb and eight
    bytes at its own place (https://github.com/msgpack/msgpack/blob/master/spec.md): one call
    writes them all and NumPy reads them as strided columns, in half the time of reading
    attributes. All else is set to None in the Structs, to keep the length.
    """

    def __init__(self, event: EventType) -> None:
        leaves = dict(_leaves(event, ""))
        self.types = {path: one for path, one in leaves.items() if one and one.real}
        self._variable = [path for path in leaves if path not in self.types]
        # Where the floats lie is found by encoding a record of floats that tell them apart.
        probe = event.blank()
        marks = {path: 0.1 + i for i, path in enumerate(self.types)}
        for path, one in self.types.items():
            value = marks[path] if one.length is None else [marks[path]] * one.length
            _set(path, [probe], value)
        encoded = self._encoded([probe])[1:]
        self._stride = len(encoded)
        self._starts = {
            path: encoded.index(struct.pack(">Bd", 0xCB, mark)) + 1 for path, mark in marks.items()
        }

    def __call__(self, records: list[Any]) -> dict[str, npt.NDArray[np.float64]]:
        """Views `[batch]` or `[batch, length]` by dotted attribute."""
        if not self.types:
            return {}
        size = len(records)
        encoded = self._encoded(records)
        head = len(encoded) - size * self._stride
        columns = {}
        for path, one in self.types.items():
            shape = (size,) if one.length is None else (size, one.length)
            strides = (self._stride,) if one.length is None else (self._stride, 9)
            start = head + self._starts[path] if size else 0
            columns[path] = np.ndarray(shape, ">f8", encoded, start, strides)
        return columns

    def _encoded(self, records: list[Any]) -> bytes:
        for path in self._variable:
            _set(path, records, None)
        return msgspec.msgpack.encode(records)


def _leaves(event: EventType, prefix: str) -> Iterator[tuple[str, FieldType | None]]:
    """Each dotted attribute with its type, None for what may be absent."""
    for name, node in event.fields.items():
        path = prefix + event.attributes[name]
        if not node.required:
            yield path, None
        elif isinstance(node, EventType):
            yield from _leaves(node, f"{path}.")
        else:
            yield path, node


def _set(path: str, records: list[Any], value: Any) -> None:
    parent, _, name = path.rpartition(".")
    owners = map(attrgetter(parent), records) if parent else records
    deque(map(setattr, owners, repeat(name), repeat(value)), maxlen=0)
