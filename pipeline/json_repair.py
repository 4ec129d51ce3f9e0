"""The careful path for one JSON event: the choices of model.yaml, or the reason of a reject.

Each record that the generated type refuses is parsed again here, field by field, so that a choice
can stand in for what is wrong and a reject can name the field.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np

from pipeline.json_types import EventType, FieldType, event_type, ids_type, input_type, passed_type
from pipeline.model import Choice, FieldSpec
from pipeline.recipe import Needs

# Deeper nesting than any event has, and half of what Python's own limit lets the parser follow.
MAX_DEPTH = 500
PARSE_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ABSENT = object()

Reason: TypeAlias = tuple[str, str]  # the short name of why, and the message


class Rejected(ValueError):
    """A record that no prediction can be made of."""

    def __init__(self, exception: str, message: str) -> None:
        super().__init__(exception, message)
        self.reason: Reason = (exception, message)


def without_unreadable(values: Sequence[bytes]) -> Sequence[bytes]:
    """The values, empty in place of those that must not reach msgspec.

    It checks no UTF-8 in strings that it skips, and follows nesting up to Python's own limit.
    """
    if max(map(len, values), default=0) < 2 * MAX_DEPTH and all(map(bytes.isascii, values)):
        return values
    return [b"" if _unreadable(value) else value for value in values]


def _unreadable(value: bytes) -> Reason | None:
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as failure:
            return "InvalidUTF8", f"the value is no valid UTF-8: {failure}"
    if _too_deep(value):
        return "TooDeep", f"the value nests deeper than {MAX_DEPTH}"
    return None


def _too_deep(value: bytes) -> bool:
    """Whether it nests deeper than MAX_DEPTH, brackets inside strings not counted."""
    if len(value) < 2 * MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    # `[` and `{`, `]` and `}` differ in one bit.
    folded = np.frombuffer(_STRINGS.sub(b"", value), np.uint8) | 0x20
    steps = (folded == ord("{")).astype(np.int64) - (folded == ord("}"))
    return bool(np.cumsum(steps).max(initial=0) > MAX_DEPTH)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A record of the careful path; what passes through is kept apart from the model's choices."""

    record: Any
    columns: dict[str, Any]
    event_time: Any


class Repair:
    """Reads one record field by field; made once for all that a decoder needs."""

    def __init__(self, needs: Needs, event: EventType) -> None:
        self._event_time = needs.event_time
        self._forbid_unknown_fields = needs.extra_fields == "reject"
        self._event = event
        self._inputs = {
            spec.path: (spec, input_type(one, tensor))
            for one, tensor in needs.inputs
            for spec in one.fields
        }
        self._inputs |= {spec.field.path: (spec.field, ids_type(spec)) for spec in needs.ids}
        self._passed = {
            field.name: event_type({field.name: passed_type(field.type)})
            for field in needs.pass_through
        }

    def __call__(self, value: bytes) -> Repaired:
        """The record with its choices; raises `Rejected`, which names the field."""
        document = _parsed(value)
        if self._forbid_unknown_fields:
            _check_known(document, self._event, "")
        return Repaired(
            record=self._record(document, self._event, ""),
            columns={name: _passed(document, name, one) for name, one in self._passed.items()},
            event_time=self._time(document),
        )

    def _record(self, document: dict[str, Any], event: EventType, prefix: str) -> Any:
        made: dict[str, Any] = {}
        for name, node in event.fields.items():
            path = prefix + name
            if isinstance(node, EventType):
                value = self._record(document, node, f"{path}.")
            elif path in self._inputs:
                value = _chosen(document, *self._inputs[path])
            else:
                value = None
            made[event.attributes[name]] = value
        return event.struct(**made)

    def _time(self, document: dict[str, Any]) -> Any:
        if self._event_time is None:
            return None
        moment = _look(document, self._event_time)
        if moment is _ABSENT or moment is None:
            problem = "is missing or null; input.event_time says it is required"
            raise Rejected("MissingField", f"field {self._event_time!r} {problem}")
        return moment


def _parsed(value: bytes) -> dict[str, Any]:
    reason = _unreadable(value)
    if reason is not None:
        raise Rejected(*reason)
    try:
        document = msgspec.json.decode(value)
    except RecursionError:
        raise Rejected("TooDeep", "the value nests too deep") from None
    except PARSE_FAILURES as failure:
        raise Rejected("MalformedJSON", f"the value is no valid JSON: {failure}") from None
    if not isinstance(document, dict):
        found = type(document).__name__
        raise Rejected("NotAnObject", f"the value is a JSON {found}, an object is needed")
    return document


def _check_known(document: dict[str, Any], event: EventType, prefix: str) -> None:
    for name, value in document.items():
        node = event.fields.get(name)
        if node is None:
            problem = "is not known; model.yaml says extra_fields: reject"
            raise Rejected("UnknownField", f"field {prefix + name!r} {problem}")
        if isinstance(node, EventType) and isinstance(value, dict):
            _check_known(value, node, f"{prefix}{name}.")


def _look(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name, _ABSENT) if isinstance(document, dict) else _ABSENT
    return document


def _chosen(document: dict[str, Any], spec: FieldSpec, kind: FieldType) -> Any:
    """The value of one model field, or what model.yaml puts in its place."""
    value = _look(document, spec.path)
    if not kind.required and (value is _ABSENT or value is None):
        return None
    if value is _ABSENT:
        key, choice, exception, problem = "missing", spec.missing, "MissingField", "is missing"
    elif value is None:
        key, choice, exception, problem = "null", spec.null, "NullField", "is null"
    else:
        try:
            return msgspec.convert(value, kind.annotation())
        except (msgspec.ValidationError, OverflowError) as failure:
            key, choice, exception = "invalid", spec.invalid, "InvalidField"
            problem = f"is invalid: {failure}"
    if choice is Choice.REJECT:
        rule = "it is required" if key == "missing" else f"{key}: reject"
        raise Rejected(exception, f"field {spec.path!r} {problem}; model.yaml says {rule}")
    items = choice if isinstance(choice, list) else [choice] * (kind.length or 1)
    items = [float(item) for item in items] if kind.real else items
    return items[0] if kind.length is None else items


def _passed(document: dict[str, Any], name: str, event: EventType) -> Any:
    if name not in document:
        return None
    try:
        made = msgspec.convert({name: document[name]}, event.struct)
    except (msgspec.ValidationError, OverflowError) as failure:
        problem = f"is invalid: {failure}; input.pass_through gives its type"
        raise Rejected("InvalidField", f"field {name!r} {problem}") from None
    return msgspec.to_builtins(getattr(made, event.attributes[name]))
