"""Every setting in words, from the fields themselves."""

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import kafka_keys, settings, shapes
from pipeline.config import Config

_WIDTH = 96
_KINDS = {
    str: "text",
    Path: "path",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dict: "mapping",
}


def explain() -> str:
    """Describe every setting: dotted name, what it holds, its default, its meaning; by section."""
    parts = ["\n".join(_section("the job", "what it is called and how it runs", Config, ""))]
    for field, hint in settings.settings_of(Config):
        if field.name == "kafka":
            parts.append("\n".join(_kafka(field)))
        elif settings.is_section(hint):
            meaning = field.metadata["help"]
            if shorthand := field.metadata.get("shorthand"):
                meaning += f"; a bare number stands for {field.name}.{shorthand}"
            parts.append("\n".join(_section(field.name, meaning, hint, f"{field.name}.")))
    parts.append(
        textwrap.fill(
            "Any text may hold ${NAME} or ${NAME:-default}, which the environment fills in. "
            "Unknown keys are mistakes, and all mistakes are shown at once.",
            _WIDTH,
        )
    )
    return "\n\n".join(parts) + "\n"


def _section(title: str, meaning: str, section: Any, prefix: str) -> Iterator[str]:
    yield f"{title}: {meaning}"
    for field, hint in settings.settings_of(section):
        if not settings.is_section(hint) and field.name != "kafka":
            yield f"  {prefix}{field.name} ({_holds(field, hint)}; {_default(field)})"
            yield _indented(field.metadata["help"])


def _holds(field: dataclasses.Field[Any], hint: Any) -> str:
    kind, optional = settings.kind_of_hint(hint)
    choices = " | ".join(field.metadata.get("choices", ()))
    parts = [
        choices or _KINDS[kind],
        shapes.range_of(field.metadata),
        "or null" if optional else "",
    ]
    return " ".join(part for part in parts if part)


def _default(field: dataclasses.Field[Any]) -> str:
    if derived := field.metadata.get("derived"):
        return f"derived: {derived}" if "{" in derived else f"default {derived}"
    if field.default_factory is not dataclasses.MISSING:
        return "default {}"
    if field.default is dataclasses.MISSING:
        return "required"
    written = {None: "null", True: "true", False: "false"}
    # 1 equals True, and 0 False: only what is one of the three may be looked up.
    plain = field.default is None or isinstance(field.default, bool)
    return f"default {written[field.default] if plain else field.default}"


def _kafka(field: dataclasses.Field[Any]) -> Iterator[str]:
    yield f"kafka: {field.metadata['help']}"
    yield "  kafka.bootstrap.servers (text; required)"
    yield _indented("brokers to begin with, as host:port, separated by commas")
    yield "  kafka.* (text, number, true or false)"
    yield _indented(
        "any other key of librdkafka's CONFIGURATION.md; passwords, private keys and other "
        "secrets only as ${NAME}. These belong to the protocol and are refused:"
    )
    for key, owned in kafka_keys.OWNED.items():
        yield textwrap.fill(
            f"{key}: {owned.reason}",
            _WIDTH,
            initial_indent=" " * 6,
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
        )


def _indented(text: str) -> str:
    indent = " " * 6
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
