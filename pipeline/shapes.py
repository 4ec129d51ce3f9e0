"""What one value of a config may be: its type, its range, its shape as a text.

Each check raises `WrongError`; none of them knows the setting or other values.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_NESTING = 8
_WANTED = {
    str: ("a text", "Put it in quotes"),
    Path: ("a path", "Write the path of a folder, in quotes"),
    int: ("a whole number", "Write digits only, without quotes"),
    float: ("a number", "Write a finite number, without quotes"),
    bool: ("true or false", "Write true or false, without quotes"),
    dict: ("a mapping", "Write {field: type}"),
}


class WrongError(Exception):
    """What is wrong with one value, and the way out; whoever knows the setting adds its name."""

    def __init__(self, problem: str, way_out: str) -> None:
        super().__init__(problem, way_out)
        self.problem = problem
        self.way_out = way_out


def job(text: str) -> None:
    """Refuse what cannot be a folder, a group and the first part of topics at once.

    No dot is allowed, as the group of a job `a.archive` would be that of `a`'s archiver.
    """
    if not _JOB.fullmatch(text):
        raise WrongError(
            "is no legal job name",
            "Use up to 200 letters, digits, _ and -, with a letter or digit first",
        )


def topic(text: str) -> None:
    """Refuse what Kafka refuses as a topic's name."""
    if not _TOPIC.fullmatch(text) or text in (".", ".."):
        raise WrongError("is no legal topic name", "Use up to 249 letters, digits, ., _ and -")


def group(text: str) -> None:
    """Refuse names that are too long for a transactional id with a slot behind it."""
    if len(text.encode()) > 249:
        raise WrongError("is longer than 249 bytes", "Choose a shorter name")


def start(text: str) -> None:
    """Accept earliest, latest, and a time with its zone that is not before 1970."""
    if text in ("earliest", "latest"):
        return
    way_out = "Write earliest, latest or a time with its zone, such as 2026-01-31T08:00:00Z"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise WrongError("is neither earliest, latest nor an ISO 8601 time", way_out) from None
    if time.tzinfo is None:
        raise WrongError("is a time without its zone", way_out)
    if time.timestamp() < 0:
        raise WrongError("is before 1970", way_out)


def folder(text: str) -> None:
    """Refuse what would become a local folder of a strange name."""
    if _SCHEME.match(text):
        raise WrongError(
            "has a scheme, and object stores are not supported yet",
            "Mount the store and name the mounted folder",
        )
    if text.startswith("~"):
        raise WrongError("starts with ~, which only a shell fills in", "Write ${HOME} instead")


def recipe(text: str) -> None:
    """Accept `package.module:attribute`."""
    module, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise WrongError("is no module:function", "Write it such as my_module:recipe")


def field(text: str) -> None:
    """Accept `a` and `a.b`, which reaches into a nested object."""
    if not all(text.split(".")):
        raise WrongError("has an empty part", "Write it like geo.time")


def types(content: Mapping[Any, Any]) -> None:
    """Refuse what cannot be walked or named; `pipeline.schema` knows the types."""
    _walk(content, 1)


def _walk(content: object, depth: int) -> None:
    if depth > _NESTING:
        raise WrongError(f"is nested more than {_NESTING} deep", "Keep the fields you need")
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) and not key.isprintable():
                raise WrongError(f"field {key!a} is not printable", "Leave it out")
            _walk(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            _walk(value, depth + 1)


CHECKS: Mapping[str, Callable[[Any], None]] = {
    "job": job,
    "topic": topic,
    "group": group,
    "start": start,
    "folder": folder,
    "recipe": recipe,
    "field": field,
    "types": types,
}


def kind_of(raw: object) -> str:
    """Say what a value is, for a message."""
    names = {NoneType: "empty", bool: "a truth value", int: "a number", float: "a number"}
    names |= {str: "a text", dict: "a mapping", list: "a list"}
    return names.get(type(raw), f"a {type(raw).__name__}")


def typed(raw: Any, kind: type) -> Any:
    """Return a value of a type, which only a float changes; raises `WrongError`."""
    accepted: Any = {Path: str, float: (int, float)}.get(kind, kind)
    fits = isinstance(raw, accepted) and (kind is bool or not isinstance(raw, bool))
    if fits and kind is float:
        try:
            raw = float(raw)
        except OverflowError:
            raw = math.inf
        fits = math.isfinite(raw)
    if not fits:
        wanted, way_out = _WANTED[kind]
        raise WrongError(f"is {kind_of(raw)}, where {wanted} is expected", way_out)
    if isinstance(raw, str) and (not raw.strip() or not raw.isprintable()):
        raise WrongError("is empty or not printable", "Write a text, or leave the key out")
    return raw


def check_range(value: Any, facts: Mapping[str, Any]) -> None:
    """Raise `WrongError` for a value that is not among its setting's choices or in its range."""
    choices = facts.get("choices")
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1)
        listed = " or ".join(choices)
        raise WrongError("is unknown", f"Did you mean {near[0]}?" if near else f"Write {listed}")
    if isinstance(value, int | float) and (
        value < facts.get("minimum", value)
        or value > facts.get("maximum", value)
        or ("above" in facts and value <= facts["above"])
    ):
        raise WrongError("is out of range", f"Write a number {range_of(facts)}")


def range_of(facts: Mapping[str, Any]) -> str:
    """Say in words which numbers a setting takes; empty where any."""
    low = f"above {facts['above']}" if "above" in facts else f"from {facts.get('minimum')}"
    return f"{low} to {facts['maximum']}" if "maximum" in facts else ""
