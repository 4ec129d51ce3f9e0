"""JSON events to columns: the hot path.

A record whose fields are all there and well typed is parsed once, by a type made from what the
model needs. One that isn't is parsed again, field by field, so that the choices of model.yaml can
stand in for what is wrong and a reject can name the field. Records are never joined before they
are parsed: a newline in one of them would make it two.
"""

import datetime
import math
import re
import struct
import types
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from operator import attrgetter, eq
from typing import Annotated, Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simdjson

from pipeline.batch import Reject
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import FLOATS, NUMPY_TYPES, Choice, FieldSpec, InputSpec, Tensor
from pipeline.recipe import TOMBSTONE, Decode, Decoded, Decoder, Events, Needs, Values

# Deeper nesting than any event has, and half of what Python's own limit lets the parser follow.
MAX_DEPTH = 500
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MAX_MILLISECONDS = 253_402_300_799_999  # the last of the year 9999
_FLOAT32 = float(np.finfo(np.float32).max)
_PARSE_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
# RuntimeError is its word for nesting too deep, AttributeError ours for what is no array.
_SIMDJSON_FAILURES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)
_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """What one field of the event may hold: JSON types, and the width of integers and floats.

    `length` is None for a scalar, the number of elements of a vector, or 0 for any number.
    """

    json: frozenset[str]
    bits: int = 64
    length: int | None = None
    required: bool = True

    def meet(self, other: Self) -> Self | None:
        """What satisfies both, or None where nothing does."""
        json = self.json & other.json
        if not json or (self.length is None) != (other.length is None):
            return None
        if self.length and other.length and self.length != other.length:
            return None
        return replace(
            self,
            json=json,
            bits=min(self.bits, other.bits),
            length=None if self.length is None else self.length or other.length,
            required=self.required or other.required,
        )

    def annotation(self) -> Any:
        """The type that msgspec checks."""
        if "real" in self.json:
            limit = msgspec.Meta(ge=-_FLOAT32, le=_FLOAT32)
            one: Any = Annotated[float, limit] if self.bits == 32 else float
        elif "int" in self.json:
            bound = 1 << (self.bits - 1)
            one = Annotated[int, msgspec.Meta(ge=-bound, le=bound - 1)]
            one = one | str if "string" in self.json else one
        else:
            one = str if "string" in self.json else bool
        if self.length is not None:
            whole = list[one] if self.required else list[one | None]
            size = msgspec.Meta(min_length=self.length, max_length=self.length)
            one = Annotated[whole, size] if self.length else whole
        return one if self.required else one | None


_Tree = dict[str, Any]  # name -> _Leaf or a tree below it


def _model_leaf(one: InputSpec, tensor: Tensor) -> _Leaf:
    kind = tensor.kind
    length = None if one.stacked or tensor.width == 1 else tensor.width
    if kind in FLOATS:
        return _Leaf(frozenset({"int", "real"}), 32 if kind == "float" else 64, length)
    name = {"bool": "bool", "string": "string"}.get(kind, "int")
    return _Leaf(frozenset({name}), _BITS.get(kind, 64), length)


def _passed(kind: pa.DataType) -> Any:
    if pa.types.is_struct(kind):
        return {field.name: _passed(field.type) for field in kind}
    if pa.types.is_list(kind):
        return replace(_passed(kind.value_type), length=0)
    if pa.types.is_floating(kind):
        return _Leaf(frozenset({"int", "real"}), kind.bit_width, required=False)
    if pa.types.is_integer(kind):
        return _Leaf(frozenset({"int"}), kind.bit_width, required=False)
    return _Leaf(frozenset({"bool" if pa.types.is_boolean(kind) else "string"}), required=False)


def _merge(left: Any, right: Any, path: str, mistakes: list[Mistake]) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        both = {**left, **{key: right[key] for key in right if key not in left}}
        for key in left.keys() & right.keys():
            both[key] = _merge(left[key], right[key], f"{path}.{key}" if path else key, mistakes)
        return both
    meet = None
    if isinstance(left, _Leaf) and isinstance(right, _Leaf):
        meet = left.meet(right)
    if meet is None:
        way_out = "Ask for it with one type in model.yaml, input.pass_through and input.event_time"
        mistakes.append(Mistake("input", path, "is asked for with types that exclude", way_out))
        return left
    return meet


def _tree(needs: Needs) -> _Tree:
    """Everything needed, by its place in the event; raises ConfigInvalid where types exclude."""
    mistakes: list[Mistake] = []
    wanted: list[tuple[str, Any]] = [
        (spec.path, _model_leaf(one, tensor)) for one, tensor in needs.inputs for spec in one.fields
    ]
    if needs.event_time is not None:
        wanted.append((needs.event_time, _Leaf(frozenset({"int", "string"}))))
    tree: _Tree = {}
    for path, leaf in wanted:
        branch = leaf
        for name in reversed(path.split(".")):
            branch = {name: branch}
        tree = _merge(tree, branch, "", mistakes)
    for field in needs.pass_through:
        tree = _merge(tree, {field.name: _passed(field.type)}, "", mistakes)
    choices: dict[str, tuple[str, ...]] = {}
    for spec in (spec for one, _ in needs.inputs for spec in one.fields):
        found = tuple(repr(value) for value in (spec.missing, spec.null, spec.invalid))
        if choices.setdefault(spec.path, found) != found:
            problem = "is read twice with different choices for what is missing, null or invalid"
            mistakes.append(Mistake("inputs", spec.path, problem, "Make the choices the same"))
    if mistakes:
        raise ConfigInvalid(mistakes)
    return tree


@dataclass(frozen=True, slots=True)
class _Shape:
    """A msgspec Struct made for a tree, with the attribute that stands for each name."""

    type: Any
    names: dict[str, str]
    below: dict[str, Any]  # name -> _Shape, or the _Leaf
    required: bool

    def attribute(self, path: Sequence[str]) -> str:
        """The dotted attribute of a path, for attrgetter."""
        first, *rest = path
        below = self.below[first]
        name = self.names[first]
        return f"{name}.{below.attribute(rest)}" if rest else name


def _shape(tree: _Tree, forbid: bool) -> _Shape:
    below = {
        name: _shape(node, forbid) if isinstance(node, dict) else node
        for name, node in tree.items()
    }
    fields: list[Any] = []
    # Names of events need not be names of Python.
    names = {name: f"f{i}" for i, name in enumerate(tree)}
    for name, node in below.items():
        kind = node.type if isinstance(node, _Shape) else node.annotation()
        if node.required:
            fields.append((names[name], kind))
        else:
            fields.append((names[name], kind | None, None))
    made = msgspec.defstruct(
        "Event",
        fields,
        rename={attribute: name for name, attribute in names.items()},
        kw_only=True,
        gc=False,
        forbid_unknown_fields=forbid,
    )
    return _Shape(made, names, below, any(node.required for node in below.values()))


class _Rejected(ValueError):
    """A record that is rejected: the short name of why, and the message."""

    def __init__(self, exception: str, message: str) -> None:
        super().__init__(exception, message)
        self.reason = (exception, message)


_ABSENT = object()


def _look(document: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(document, dict):
            return _ABSENT
        document = document.get(name, _ABSENT)
        if document is _ABSENT:
            return _ABSENT
    return document


def _choose(spec: FieldSpec, leaf: _Leaf, document: Any) -> Any:
    """The value of one model field, or what model.yaml puts in its place."""
    value = _look(document, spec.path.split("."))
    if value is _ABSENT:
        key, choice, exception, problem = "missing", spec.missing, "MissingField", "is missing"
    elif value is None:
        key, choice, exception, problem = "null", spec.null, "NullField", "is null"
    else:
        try:
            return msgspec.convert(value, leaf.annotation())
        except (msgspec.ValidationError, OverflowError) as failure:
            problem = f"is invalid: {failure}"
            key, choice, exception = "invalid", spec.invalid, "InvalidField"
    if choice is Choice.REJECT:
        rule = "it is required" if key == "missing" else f"{key}: reject"
        message = f"field {spec.path!r} {problem}; model.yaml says {rule}"
        raise _Rejected(exception, message)
    if leaf.length is not None:
        return choice if isinstance(choice, list) else [choice] * leaf.length
    one = choice[0] if isinstance(choice, list) else choice
    return float(one) if "real" in leaf.json else one


def _too_deep(value: bytes) -> bool:
    """Whether it nests deeper than MAX_DEPTH, brackets inside strings not counted."""
    if len(value) < 2 * MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    # `[` and `{`, `]` and `}` differ in one bit.
    folded = np.frombuffer(_STRINGS.sub(b"", value), np.uint8) | 0x20
    steps = (folded == ord("{")).astype(np.int64) - (folded == ord("}"))
    return bool(np.cumsum(steps).max(initial=0) > MAX_DEPTH)


def _unreadable(value: bytes | None) -> tuple[str, str] | None:
    """Why a record must not reach the parser, or None."""
    if value is None:
        return TOMBSTONE
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as failure:
            return "InvalidUTF8", f"the value is no valid UTF-8: {failure}"
    if _too_deep(value):
        return "TooDeep", f"the value nests deeper than {MAX_DEPTH}"
    return None


def _screen(values: Values) -> dict[int, tuple[str, str]]:
    """Rows that must not reach the parser, which checks no string that it skips."""
    if None not in values:
        known: Sequence[bytes] = values  # type: ignore[assignment]
        longest = max(map(len, known), default=0)
        if longest < 2 * MAX_DEPTH and all(map(bytes.isascii, known)):
            return {}
    reasons = ((row, _unreadable(value)) for row, value in enumerate(values))
    return {row: reason for row, reason in reasons if reason is not None}


def _tombstones(values: Values) -> dict[int, tuple[str, str]]:
    """Rows without a value; simdjson checks UTF-8 and depth itself."""
    if None not in values:
        return {}
    return {row: TOMBSTONE for row, value in enumerate(values) if value is None}


def _event_time(value: object) -> int:
    """Milliseconds since the epoch, or ISO 8601 (UTC where it names no zone), in µs."""
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError as failure:
            raise _Rejected("InvalidEventTime", f"the event time is invalid: {failure}") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, bool) or not isinstance(value, int):
        problem = "is neither milliseconds since the epoch nor ISO 8601"
        raise _Rejected("InvalidEventTime", f"the event time {value!r} {problem}")
    if abs(value) > _MAX_MILLISECONDS:
        raise _Rejected("InvalidEventTime", f"the event time {value} ms is out of range")
    return value * 1000


@dataclass(frozen=True, slots=True)
class _Repaired:
    """A record of the slow path; what passes through is kept apart from the model's defaults."""

    record: Any
    columns: dict[str, Any]
    event_time: Any


class _Slow:
    """The careful path: any record to a `_Repaired`, or `_Rejected` with the field's name."""

    def __init__(self, needs: Needs, shape: _Shape) -> None:
        self.needs = needs
        self.shape = shape
        self.specs = {
            tuple(spec.path.split(".")): (spec, _model_leaf(one, tensor))
            for one, tensor in needs.inputs
            for spec in one.fields
        }
        passed = {field.name: _passed(field.type) for field in needs.pass_through}
        self.passed = {name: _shape({name: node}, forbid=False) for name, node in passed.items()}
        self.parse = msgspec.json.Decoder().decode

    def __call__(self, value: bytes) -> _Repaired:
        reason = _unreadable(value)
        if reason is not None:
            raise _Rejected(*reason)
        try:
            document = self.parse(value)
        except RecursionError:
            raise _Rejected("TooDeep", "the value nests too deep") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as failure:
            message = f"the value is no valid JSON: {failure}"
            raise _Rejected("MalformedJSON", message) from None
        if not isinstance(document, dict):
            message = f"the value is a JSON {type(document).__name__}, an object is needed"
            raise _Rejected("NotAnObject", message)
        if self.needs.extra_fields == "reject":
            self._no_more_than(document, self.shape, "")
        record = self._build(document, self.shape, ())
        columns = {name: self._pass(document, name, shape) for name, shape in self.passed.items()}
        moment = None
        if self.needs.event_time is not None:
            moment = _look(document, self.needs.event_time.split("."))
            if moment is _ABSENT or moment is None:
                name = self.needs.event_time
                message = f"field {name!r} is missing or null; input.event_time says it is required"
                raise _Rejected("MissingField", message)
        return _Repaired(record, columns, moment)

    def _pass(self, document: Any, name: str, shape: _Shape) -> Any:
        if name not in document:
            return None
        try:
            made = msgspec.convert({name: document[name]}, shape.type)
        except (msgspec.ValidationError, OverflowError) as failure:
            message = f"field {name!r} is invalid: {failure}; input.pass_through gives its type"
            raise _Rejected("InvalidField", message) from None
        return msgspec.to_builtins(getattr(made, shape.names[name]))

    def _build(self, document: Any, shape: _Shape, path: tuple[str, ...]) -> Any:
        made: dict[str, Any] = {}
        for name, node in shape.below.items():
            here = (*path, name)
            if isinstance(node, _Shape):
                made[shape.names[name]] = self._build(document, node, here)
            elif here in self.specs:
                made[shape.names[name]] = _choose(*self.specs[here], document)
            else:
                made[shape.names[name]] = None
        return shape.type(**made)

    def _no_more_than(self, document: dict[str, Any], shape: _Shape, prefix: str) -> None:
        for name, value in document.items():
            if name not in shape.below:
                message = (
                    f"field {prefix + name!r} is not known; model.yaml says extra_fields: reject"
                )
                raise _Rejected("UnknownField", message)
            node = shape.below[name]
            if isinstance(node, _Shape) and isinstance(value, dict):
                self._no_more_than(value, node, f"{prefix}{name}.")


def json_decoder(needs: Needs) -> Decode:
    """Make the `decode` for JSON objects; raises ConfigInvalid where one field has two types."""
    shape = _shape(_tree(needs), needs.extra_fields == "reject")
    slow = _Slow(needs, shape)
    read_vectors = _numeric_vectors(needs)
    if read_vectors:
        read = _vector_reader(needs, shape, slow)
    else:
        read = _struct_reader(needs, shape, slow)

    screen = _tombstones if read_vectors else _screen

    def decode(values: Values) -> Decoded:
        rejects = screen(values)
        if rejects:
            rows = [row for row in range(len(values)) if row not in rejects]
            readable = [values[row] for row in rows]
        else:
            rows, readable = list(range(len(values))), list(values)
        return read(readable, rows, rejects)

    return decode


_Read = Callable[[list[Any], list[int], dict[int, tuple[str, str]]], Decoded]


def _decoded(
    events: Events,
    rows: list[int],
    rejects: dict[int, tuple[str, str]],
    times: npt.NDArray[np.int64] | None,
) -> Decoded:
    named = tuple(Reject(row, "decode", *rejects[row]) for row in sorted(rejects))
    return Decoded(events, np.array(rows, np.int64), named, times)


def _times(moments: list[Any]) -> tuple[npt.NDArray[np.int64], dict[int, tuple[str, str]]]:
    """Event times in µs, and which of them are invalid (those hold 0)."""
    try:
        if set(map(type, moments)) <= {int}:
            times = np.array(moments, np.int64)
            if not (np.abs(times) > _MAX_MILLISECONDS).any():
                return times * 1000, {}
    except OverflowError:
        pass  # The loop below names the one that is out of range.
    times = np.zeros(len(moments), np.int64)
    wrong = {}
    for i, moment in enumerate(moments):
        try:
            times[i] = _event_time(moment)
        except _Rejected as failure:
            wrong[i] = failure.reason
    return times, wrong


def _struct_reader(needs: Needs, shape: _Shape, slow: _Slow) -> _Read:
    """Parse each record into a Struct, then take the Structs apart column by column."""
    parse = msgspec.json.Decoder(shape.type).decode
    extract = _extractor(needs, shape)
    time = None
    if needs.event_time is not None:
        time = attrgetter(shape.attribute(needs.event_time.split(".")))

    def read(values: list[Any], rows: list[int], rejects: dict[int, tuple[str, str]]) -> Decoded:
        records: list[Any] = []
        repaired: dict[int, _Repaired] = {}
        failed: dict[int, tuple[str, str]] = {}
        remaining = iter(values)
        while True:
            try:
                # What was parsed before a failure stays in the list.
                records.extend(map(parse, remaining))
                break
            except _PARSE_FAILURES:
                at = len(records)
            try:
                repaired[at] = slow(values[at])
                records.append(repaired[at].record)
            except _Rejected as failure:
                failed[at] = failure.reason
                records.append(None)
        times = None
        if time is not None:
            moments = [
                repaired[i].event_time if i in repaired else 0 if record is None else time(record)
                for i, record in enumerate(records)
            ]
            times, wrong = _times(moments)
            failed = {**wrong, **failed}
        if failed:
            kept = [i for i in range(len(records)) if i not in failed]
            rejects = {**rejects, **{rows[i]: reason for i, reason in failed.items()}}
            repaired = {new: repaired[old] for new, old in enumerate(kept) if old in repaired}
            rows, records = [rows[i] for i in kept], [records[i] for i in kept]
            times = None if times is None else times[kept]
        events = extract(records)
        for i, one in repaired.items():
            for name, value in one.columns.items():
                events.columns[name][i] = value
        return _decoded(events, rows, rejects, times)

    return read


def _extractor(needs: Needs, shape: _Shape) -> Callable[[list[Any]], Events]:
    """Make the function from Structs to columns.

    Floats come out of MessagePack: a Struct of floats encodes to the same length each time, with
    each float as 0xcb and eight bytes at its own place, so that one call writes them all and NumPy
    reads them as strided columns. This takes half the time of reading attributes. All else is read
    as attributes before, and set to None to keep the length.
    """
    attributes = {
        spec.path: shape.attribute(spec.path.split("."))
        for one, _ in needs.inputs
        for spec in one.fields
    }
    leaves = list(_leaves(shape, ""))
    packed = {path: leaf for path, leaf in leaves if "real" in leaf.json and leaf.required}
    variable = [path for path, leaf in leaves if path not in packed]
    places, probe = _places(shape, packed)
    stride = len(probe)
    encode = msgspec.msgpack.Encoder().encode
    clear = [path.rpartition(".")[::2] for path in variable]
    passed = {f.name: attrgetter(shape.names[f.name]) for f in needs.pass_through}
    nested = {f.name: _passed(f.type) for f in needs.pass_through if pa.types.is_struct(f.type)}
    inputs = [
        (one, tensor, [attributes[spec.path] for spec in one.fields])
        for one, tensor in needs.inputs
    ]

    def extract(records: list[Any]) -> Events:
        columns = {
            name: [_only(nested[name], msgspec.to_builtins(get(record))) for record in records]
            if name in nested
            else list(map(get, records))
            for name, get in passed.items()
        }
        others = {
            path: list(map(attrgetter(path), records))
            for _, _, paths in inputs
            for path in paths
            if path not in packed
        }
        buffer = b""
        if packed:
            for parent, name in clear:
                owners = map(attrgetter(parent), records) if parent else records
                deque(map(setattr, owners, repeat(name), repeat(None)), maxlen=0)
            buffer = encode(records)
        size = len(records)
        start = len(buffer) - size * stride

        def column(path: str) -> npt.NDArray[np.float64]:
            length = packed[path].length
            shape = (size,) if length is None else (size, length)
            strides = (stride,) if length is None else (stride, 9)
            return np.ndarray(shape, ">f8", buffer, start + places[path] if size else 0, strides)

        feeds = {}
        for one, tensor, paths in inputs:
            kind = NUMPY_TYPES[tensor.kind]
            width = len(paths) if one.stacked else tensor.width or 1
            matrix = np.empty((size, width), kind)
            for i, path in enumerate(paths):
                values = column(path) if path in packed else np.array(others[path], kind)
                if one.stacked or width == 1:
                    matrix[:, i] = values.reshape(size)
                else:
                    matrix[:] = values.reshape(size, width)
            feeds[one.name] = _reshape(matrix, tensor)
        return Events(size, feeds, columns)

    return extract


def _only(tree: Any, value: Any) -> Any:
    """The part of an object that passes through, without what only the model reads."""
    if not isinstance(tree, dict) or value is None:
        return value
    return {name: _only(below, value[name]) for name, below in tree.items()}


def _reshape(matrix: npt.NDArray[Any], tensor: Tensor) -> npt.NDArray[Any]:
    """`[batch, width]` in the shape that the model takes."""
    axes = list(tensor.shape[1:])
    if None in axes:
        known = math.prod(axis for axis in axes if axis is not None)
        axes[axes.index(None)] = matrix.shape[1] // known
    return matrix.reshape([len(matrix), *(axis or 0 for axis in axes)])


def _leaves(shape: _Shape, prefix: str) -> Any:
    """Each leaf with its dotted attribute; an optional Struct is one leaf, which varies."""
    for name, node in shape.below.items():
        path = prefix + shape.names[name]
        if isinstance(node, _Leaf):
            yield path, node
        elif node.required:
            yield from _leaves(node, f"{path}.")
        else:
            yield path, _Leaf(frozenset({"object"}), required=False)


def _places(shape: _Shape, packed: dict[str, _Leaf]) -> tuple[dict[str, int], bytes]:
    """Where each float's eight bytes begin in an encoded record, found by encoding a probe."""
    marks = {path: 0.1 + i for i, path in enumerate(packed)}

    def build(below: _Shape, prefix: str) -> Any:
        made: dict[str, Any] = {}
        for name, node in below.below.items():
            path = prefix + below.names[name]
            if isinstance(node, _Shape) and node.required:
                made[below.names[name]] = build(node, f"{path}.")
            elif path in marks:
                length = packed[path].length
                mark = marks[path]
                made[below.names[name]] = mark if length is None else [mark] * length
            else:
                made[below.names[name]] = None
        return below.type(**made)

    probe = msgspec.msgpack.encode(build(shape, ""))
    found = {path: probe.index(struct.pack(">Bd", 0xCB, mark)) + 1 for path, mark in marks.items()}
    return found, probe


def _numeric_vectors(needs: Needs) -> bool:
    """Whether simdjson pays: inputs are float arrays, and all that passes through is scalar."""
    vectors = all(
        not one.stacked
        and tensor.kind in FLOATS
        and (tensor.width or 1) > 1
        and "." not in one.fields[0].path
        for one, tensor in needs.inputs
    )
    scalars = all(isinstance(_passed(field.type), _Leaf) for field in needs.pass_through)
    lists = any(pa.types.is_list(field.type) for field in needs.pass_through)
    nested_time = needs.event_time is not None and "." in needs.event_time
    names = [one.fields[0].path for one, _ in needs.inputs if one.fields]
    names += [field.name for field in needs.pass_through]
    names += [] if needs.event_time is None else [needs.event_time]
    shared = len(set(names)) != len(names)
    return (
        vectors
        and scalars
        and not (lists or nested_time or shared or needs.extra_fields == "reject")
    )


def _vector_reader(needs: Needs, shape: _Shape, slow: _Slow) -> _Read:
    """Read whole arrays of numbers with simdjson, which makes no Python float of them."""
    paths = [one.fields[0].path for one, _ in needs.inputs]
    sizes = [8 * (tensor.width or 1) for _, tensor in needs.inputs]
    names = [field.name for field in needs.pass_through]
    kinds: dict[str, Any] = {
        name: types.GenericAlias(list, (shape.below[name].annotation(),)) for name in names
    }
    moment_name = needs.event_time
    by_struct = _struct_reader(needs, shape, slow)

    def simple(values: list[Any]) -> bool:
        # as_buffer flattens arrays in arrays: there must be no bracket but the vectors' own.
        if len(paths) == 1:
            first = map(bytes.find, values, repeat(b"["))
            return all(map(eq, first, map(bytes.rfind, values, repeat(b"["))))
        return all(value.count(b"[") == len(paths) for value in values)

    def read(values: list[Any], rows: list[int], rejects: dict[int, tuple[str, str]]) -> Decoded:
        if not simple(values):
            unreadable = _screen(values)
            if unreadable:
                rejects = {**rejects, **{rows[at]: why for at, why in unreadable.items()}}
                kept = [at for at in range(len(values)) if at not in unreadable]
                values, rows = [values[at] for at in kept], [rows[at] for at in kept]
            return by_struct(values, rows, rejects)
        parse: Callable[[bytes], Any] = simdjson.Parser().parse
        arrays: list[list[bytes]] = [[] for _ in paths]
        scalars: list[list[Any]] = [[] for _ in names]
        moments: list[Any] = []
        doubted: set[int] = set()
        # One loop without zip or keyword: each costs as much as parsing ten numbers.
        takes = list(zip(paths, [found.append for found in arrays], strict=True))
        gets = list(zip(names, [column.append for column in scalars], strict=True))
        for at, value in enumerate(values):
            try:
                document = parse(value)
                for path, take in takes:
                    take(bytes(document[path].as_buffer(of_type="d")))
                for name, take in gets:
                    take(document.get(name))
                if moment_name is not None:
                    moments.append(document[moment_name])
            except _SIMDJSON_FAILURES:
                doubted.add(at)
                for found in arrays:
                    found[at:] = [b""]
                for column in scalars:
                    column[at:] = [None]
                moments[at:] = [0]
            # The parser refuses another record while anything of this one lives.
            document = None
        for size, found in zip(sizes, arrays, strict=True):
            if set(map(len, found)) - {size}:
                odd = [at for at, array in enumerate(found) if len(array) != size]
                doubted.update(odd)
                for at in odd:
                    found[at] = bytes(size)
        columns = {}
        for name, column in zip(names, scalars, strict=True):
            columns[name], wrong = _converted(column, kinds[name])
            doubted |= wrong
        feeds = {}
        for (one, tensor), found in zip(needs.inputs, arrays, strict=True):
            matrix = np.frombuffer(b"".join(found)).reshape(len(found), tensor.width or 1)
            with np.errstate(over="ignore"):
                feeds[one.name] = matrix.astype(NUMPY_TYPES[tensor.kind])
            doubted |= set(np.flatnonzero(np.isinf(feeds[one.name]).any(axis=1)).tolist())
        failed: dict[int, tuple[str, str]] = {}
        for at in sorted(doubted):
            try:
                repaired = slow(values[at])
            except _Rejected as failure:
                failed[at] = failure.reason
                continue
            for (one, _), path in zip(needs.inputs, paths, strict=True):
                feeds[one.name][at] = attrgetter(shape.attribute([path]))(repaired.record)
            for name, passed in repaired.columns.items():
                columns[name][at] = passed
            if moment_name is not None:
                moments[at] = repaired.event_time
        times = None
        if moment_name is not None:
            times, wrong_times = _times(moments)
            failed = {**wrong_times, **failed}
        if failed:
            kept = [at for at in range(len(values)) if at not in failed]
            rejects = {**rejects, **{rows[at]: reason for at, reason in failed.items()}}
            rows = [rows[at] for at in kept]
            feeds = {name: matrix[kept] for name, matrix in feeds.items()}
            columns = {name: [column[at] for at in kept] for name, column in columns.items()}
            times = None if times is None else times[kept]
        shaped = {one.name: _reshape(feeds[one.name], tensor) for one, tensor in needs.inputs}
        return _decoded(Events(len(rows), shaped, columns), rows, rejects, times)

    return read


def _converted(column: list[Any], kind: Any) -> tuple[list[Any], set[int]]:
    """The column with its types checked, and the places (None there) where they are wrong."""
    try:
        return msgspec.convert(column, kind), set()
    except (msgspec.ValidationError, OverflowError):
        wrong = set()
    kept: list[Any] = []
    for at, value in enumerate(column):
        try:
            kept += msgspec.convert([value], kind)
        except (msgspec.ValidationError, OverflowError):
            kept.append(None)
            wrong.add(at)
    return kept, wrong


DECODERS: dict[str, Decoder] = {"json": json_decoder}
