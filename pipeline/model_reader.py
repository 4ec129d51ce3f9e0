"""Reads parts of a model.yaml, and keeps every mistake found on the way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import Mistake
from pipeline.model import Choice, FieldSpec


class Reader:
    """Reads one document and owns the list of the mistakes found on the way."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.mistakes: list[Mistake] = []

    def wrong(self, path: str, value: object, problem: str, way_out: str) -> None:
        """Note a mistake at a dotted path of the document, empty for the whole."""
        setting = f"{self.where}: {path}" if path else self.where
        self.mistakes.append(Mistake(setting, value, problem, way_out))

    def mapping(self, path: str, value: object, known: Sequence[str] | None) -> dict[str, Any]:
        """The value if it is a mapping (else empty), its keys checked against `known`."""
        if not isinstance(value, dict):
            self.wrong(path, value, "is no mapping", "Write keys with values below it")
            return {}
        if known is not None and "null" in known and None in value:
            # YAML reads the bare word null as nothing.
            value = {"null" if key is None else key: below for key, below in value.items()}
        for key in value:
            below = f"{path}.{key}" if path else str(key)
            if not isinstance(key, str):
                self.wrong(below, key, "is no string", "Put the name in quotes")
            elif known is not None and key not in known:
                self.wrong(below, value[key], "is not known", f"Known are {', '.join(known)}")
        return {key: below for key, below in value.items() if isinstance(key, str)}

    def text(self, path: str, value: object, example: str) -> str:
        """The value if it is a text, else an empty one."""
        if not isinstance(value, str) or not value:
            self.wrong(path, value, "is no name", f"Write a string like {example}, in quotes")
            return ""
        return value

    def field(self, path: str, item: Mapping[Any, Any]) -> FieldSpec:
        """A field of the event, with what stands in for it."""
        keys = ("name", "missing", "null", "invalid")
        item = self.mapping(path, dict(item), keys)
        name = self.text(path, item.get("name"), "Amount")
        if name and not all(name.split(".")):
            self.wrong(path, name, "has an empty part", "Write it like geo.position")
        missing = self.choice(f"{path}.missing", item.get("missing", "reject"))
        return FieldSpec(
            path=name,
            missing=missing,
            null=self.choice(f"{path}.null", item["null"]) if "null" in item else missing,
            invalid=self.choice(f"{path}.invalid", item.get("invalid", "reject")),
        )

    def choice(self, path: str, value: object) -> Any:
        """What stands in for a field: `Choice.REJECT`, NaN or a default."""
        if value == "reject":
            return Choice.REJECT
        if value == "nan":
            return math.nan
        if value is None or isinstance(value, dict):
            self.wrong(path, value, "is no choice", "Write reject, nan or a default value")
        return value
