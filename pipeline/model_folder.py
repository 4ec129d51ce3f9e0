"""The model folder: finds a version, reads its model.yaml and its model.

Models lie as Triton and TensorFlow Serving lay them out: `{name}/{version}/model.onnx` with
`model.yaml` beside it.
"""

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import document
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import (
    Choice,
    FieldSpec,
    InputSpec,
    ModelFiles,
    ModelSpec,
    OutputSpec,
    Threshold,
)


def resolve(path: Path) -> Path:
    """The version's folder: `path` itself if it holds a model.yaml, else its highest number.

    Raises ConfigInvalid where there is neither.
    """
    if (path / "model.yaml").is_file():
        return path
    children = path.iterdir() if path.is_dir() else ()
    versions = [child for child in children if child.is_dir() and child.name.isdecimal()]
    if not versions:
        problem = "holds no model.yaml and no version" if path.is_dir() else "is no folder"
        way_out = "Name a folder like models/fraud with a version like models/fraud/1 in it"
        raise ConfigInvalid([Mistake("model", str(path), problem, way_out)])
    return max(versions, key=lambda child: int(child.name))


def load_files(folder: Path) -> ModelFiles:
    """Read a version's folder, its model included; raises ConfigInvalid with every mistake."""
    text = _bytes(folder / "model.yaml", "Write what the model takes and gives")
    model = _bytes(folder / "model.onnx", "Put the model beside its model.yaml")
    where = str(folder / "model.yaml")
    try:
        content, mistakes = document.read(text.decode(), where)
    except UnicodeDecodeError as failure:
        problem = f"is no UTF-8: {failure.reason}"
        raise ConfigInvalid([Mistake(where, None, problem, "Save it as UTF-8")]) from failure
    if mistakes:
        raise ConfigInvalid(mistakes)
    folder = folder.resolve()
    reader = _Reader(where)
    spec = reader.spec(content, folder.parent.name, folder.name, hashlib.sha256(model).hexdigest())
    if reader.mistakes:
        raise ConfigInvalid(reader.mistakes)
    return ModelFiles(spec, model, spec.name, spec.version)


def _bytes(path: Path, way_out: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        problem = f"cannot be read: {failure.strerror}"
        raise ConfigInvalid([Mistake(str(path), None, problem, way_out)]) from failure


class _Reader:
    """Reads one document and owns the list of the mistakes found on the way."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.mistakes: list[Mistake] = []

    def wrong(self, path: str, value: object, problem: str, way_out: str) -> None:
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
        if not isinstance(value, str) or not value:
            self.wrong(path, value, "is no name", f"Write a string like {example}, in quotes")
            return ""
        return value

    def spec(self, content: object, name: str, version: str, digest: str) -> ModelSpec:
        known = ("sha256", "extra_fields", "inputs", "outputs", "threshold", "metrics")
        top = self.mapping("", content, known)
        if top.get("sha256") != digest:
            problem = f"differs from the model.onnx beside it, which has {digest}"
            way_out = "Write the model's own sha256, or put back the model that was meant"
            self.wrong("sha256", top.get("sha256"), problem, way_out)
        extra = top.get("extra_fields", "ignore")
        if extra not in ("ignore", "reject"):
            self.wrong("extra_fields", extra, "is not known", "Write ignore or reject")
        inputs = self.mapping("inputs", top.get("inputs"), None)
        if inputs == {} and isinstance(top.get("inputs"), dict):
            self.wrong("inputs", {}, "names no input", "Name the model's inputs")
        outputs = self.mapping("outputs", top.get("outputs"), None)
        if outputs == {} and isinstance(top.get("outputs"), dict):
            self.wrong("outputs", {}, "names no output", "Name the outputs to keep")
        self.mapping("metrics", top.get("metrics", {}), None)
        columns = tuple(self.output(key, value) for key, value in outputs.items())
        return ModelSpec(
            name=name,
            version=version,
            sha256=digest,
            inputs=tuple(self.input(key, value) for key, value in inputs.items()),
            outputs=columns,
            threshold=self.threshold(top.get("threshold"), columns),
            extra_fields=str(extra),
        )

    def input(self, name: str, value: object) -> InputSpec:
        path = f"inputs.{name}"
        keys = ("fields", "field", "missing", "null", "invalid")
        below = self.mapping(path, value, keys)
        if isinstance(value, dict) and ("fields" in below) == ("field" in below):
            way_out = "Write `fields:` with a list, or `field:` with one name"
            self.wrong(path, value, "needs either fields or field", way_out)
            return InputSpec(name, (), stacked=True)
        if "fields" not in below:
            choices = {key: below[key] for key in keys[2:] if key in below}
            one = self.field(path, {**choices, "name": below["field"]}) if below else None
            return InputSpec(name, () if one is None else (one,), stacked=False)
        for key in keys[2:]:
            if key in below:
                way_out = "Write it beside the field's name: {name: V2, missing: nan}"
                self.wrong(f"{path}.{key}", below[key], "goes with a single field", way_out)
        listed = below["fields"]
        if not isinstance(listed, list) or not listed:
            self.wrong(f"{path}.fields", listed, "lists no fields", "Write [Time, V1, V2]")
            return InputSpec(name, (), stacked=True)
        fields = tuple(
            self.field(f"{path}.fields[{i}]", item if isinstance(item, dict) else {"name": item})
            for i, item in enumerate(listed)
        )
        return InputSpec(name, fields, stacked=True)

    def field(self, path: str, item: Mapping[Any, Any]) -> FieldSpec:
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
        if value == "reject":
            return Choice.REJECT
        if value == "nan":
            return math.nan
        if value is None or isinstance(value, dict):
            self.wrong(path, value, "is no choice", "Write reject, nan or a default value")
        return value

    def output(self, name: str, value: object) -> OutputSpec:
        path = f"outputs.{name}"
        below = self.mapping(path, value, ("column", "pick"))
        column = self.text(f"{path}.column", below.get("column"), "score") if below else ""
        pick = below.get("pick")
        if pick is not None and (isinstance(pick, bool) or not isinstance(pick, int | str)):
            self.wrong(f"{path}.pick", pick, "is no index and no key", "Write a number or a label")
        return OutputSpec(name, column, pick)

    def threshold(self, value: object, outputs: Sequence[OutputSpec]) -> Threshold | None:
        if value is None:
            return None
        below = self.mapping("threshold", value, ("column", "at_least", "name"))
        column = self.text("threshold.column", below.get("column"), "score")
        name = self.text("threshold.name", below.get("name"), "flagged")
        columns = [output.column for output in outputs]
        if column and column not in columns:
            way_out = f"Name one of {', '.join(columns)}"
            self.wrong("threshold.column", column, "is no output's column", way_out)
        at_least: Any = below.get("at_least")
        number = isinstance(at_least, int | float) and not isinstance(at_least, bool)
        # Python compares integers of any size, and NaN is never within.
        if number and abs(at_least) <= sys.float_info.max:
            return Threshold(column, float(at_least), name)
        self.wrong("threshold.at_least", at_least, "is no finite number", "Write 0.5")
        return None
