"""The model folder: what model.yaml says, and whether the model's signature agrees.

Models lie as Triton and TensorFlow Serving lay them out: `{name}/{version}/model.onnx` with
`model.yaml` beside it.
"""

import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from pipeline.errors import ConfigInvalid, Mistake

FLOATS = ("float", "double")
INTEGERS = ("int32", "int64")
KINDS = (*FLOATS, *INTEGERS, "bool", "string")
# Strings travel as Python objects, which is how ONNX Runtime takes and gives them.
NUMPY_TYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "int32": np.int32,
    "int64": np.int64,
    "bool": np.bool_,
    "string": np.object_,
}


class Choice(enum.Enum):
    """The choice that is no value: the record becomes a dead letter."""

    REJECT = "reject"


class Tensor(NamedTuple):
    """The type of an ONNX input or output; None in the shape is a free axis."""

    kind: str
    shape: tuple[int | None, ...]

    @property
    def width(self) -> int | None:
        """How many elements one record has, None where an axis beside the batch's is free."""
        known = [axis for axis in self.shape[1:] if axis is not None]
        return math.prod(known) if len(known) == len(self.shape[1:]) else None

    @property
    def keys(self) -> str | None:
        """The key type of a sequence of maps, as sklearn's converters make it; else None."""
        start = "sequence(map("
        return self.kind.removeprefix(start).split(",")[0] if start in self.kind else None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of the event, and what stands in for it where it is absent, null or mistyped."""

    path: str
    missing: Any = Choice.REJECT
    null: Any = Choice.REJECT
    invalid: Any = Choice.REJECT


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One ONNX input: fields stacked along the last axis, or one field that is the whole input."""

    name: str
    fields: tuple[FieldSpec, ...]
    stacked: bool


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One ONNX output and its column; `pick` is an index of a vector or a key of a map."""

    name: str
    column: str
    pick: int | str | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The bool column `name`: is `column` at least `at_least`?"""

    column: str
    at_least: float
    name: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model.yaml, read and found free of mistakes."""

    name: str
    version: str
    sha256: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    threshold: Threshold | None = None
    extra_fields: str = "ignore"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What travels to a replica: successors get the same bytes."""

    spec: ModelSpec
    model: bytes = field(repr=False)
    name: str
    version: str


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


def load_spec(folder: Path) -> ModelSpec:
    """Read `{name}/{version}/model.yaml`; raises ConfigInvalid with every mistake in it."""
    return load_files(folder).spec


def load_files(folder: Path) -> ModelFiles:
    """Read a version's folder, its model included; raises ConfigInvalid with every mistake."""
    where = str(folder / "model.yaml")
    try:
        document = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as failure:
        problem = " ".join(f"cannot be read: {failure}".split())
        raise ConfigInvalid([Mistake(where, None, problem, "Mend the file")]) from failure
    try:
        model = (folder / "model.onnx").read_bytes()
    except OSError as failure:
        way_out = "Put the model beside its model.yaml"
        mistake = Mistake(str(folder / "model.onnx"), None, f"cannot be read: {failure}", way_out)
        raise ConfigInvalid([mistake]) from failure
    folder = folder.resolve()
    reader = _Reader(where)
    spec = reader.spec(document, folder.parent.name, folder.name, hashlib.sha256(model).hexdigest())
    if reader.mistakes:
        raise ConfigInvalid(reader.mistakes)
    return ModelFiles(spec, model, spec.name, spec.version)


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

    def spec(self, document: object, name: str, version: str, digest: str) -> ModelSpec:
        known = ("sha256", "extra_fields", "inputs", "outputs", "threshold", "metrics")
        top = self.mapping("", document, known)
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
        at_least = below.get("at_least")
        number = isinstance(at_least, int | float) and not isinstance(at_least, bool)
        if not number or not math.isfinite(float(str(at_least))):
            self.wrong("threshold.at_least", at_least, "is no finite number", "Write 0.5")
            return None
        return Threshold(column, float(str(at_least)), name)


def check_signature(spec: ModelSpec, signature: Signature, where: str = "") -> list[Mistake]:
    """Every point where model.yaml and the model disagree; `where` names the model.yaml."""
    prefix = f"{where or f'{spec.name}/{spec.version}/model.yaml'}: "
    given = {one.name: one for one in spec.inputs}
    mistakes = [
        Mistake(f"{prefix}inputs.{name}", None, "is an input of the model that has no entry",
                "Say which fields of the event feed it")
        for name in signature.inputs if name not in given
    ]  # fmt: skip
    for name, one in given.items():
        setting = f"{prefix}inputs.{name}"
        if name in signature.inputs:
            mistakes += _check_input(setting, one, signature.inputs[name])
        else:
            way_out = f"The model's inputs are {', '.join(signature.inputs)}"
            mistakes.append(Mistake(setting, name, "is no input of the model", way_out))
    for output in spec.outputs:
        setting = f"{prefix}outputs.{output.name}"
        if output.name in signature.outputs:
            mistakes += _check_output(setting, output, signature.outputs[output.name])
        else:
            way_out = f"The model's outputs are {', '.join(signature.outputs)}"
            mistakes.append(Mistake(setting, output.name, "is no output of the model", way_out))
    if spec.threshold is not None and not mistakes:
        output = next(one for one in spec.outputs if one.column == spec.threshold.column)
        tensor = signature.outputs[output.name]
        vector = output.pick is None and (tensor.keys is not None or tensor.width != 1)
        if vector or (tensor.keys is None and tensor.kind not in (*FLOATS, *INTEGERS)):
            way_out = "Pick one number of the output with `pick`, or name another column"
            setting = f"{prefix}threshold.column"
            mistakes.append(Mistake(setting, output.column, "is no single number", way_out))
    return mistakes


def _check_input(setting: str, one: InputSpec, tensor: Tensor) -> list[Mistake]:
    if tensor.kind not in KINDS:
        way_out = f"Export the model with one of {', '.join(KINDS)}"
        return [Mistake(setting, tensor.kind, "is a type of input that is not supported", way_out)]
    if not tensor.shape or tensor.shape[0] is not None:
        problem = "has no free batch axis, so that batches of any size do not fit"
        way_out = "Export the model with a dynamic batch axis as its first"
        return [Mistake(setting, list(tensor.shape), problem, way_out)]
    free = [axis for axis in tensor.shape[1:] if axis is None]
    if len(free) > 1 or (free and not one.stacked):
        problem = "has a free axis beside the batch's, so that its width is unknown"
        way_out = "List its `fields`, or export the model with this axis fixed"
        return [Mistake(setting, list(tensor.shape), problem, way_out)]
    if one.stacked and tensor.width is not None and tensor.width != len(one.fields):
        problem = f"lists {len(one.fields)} fields where the model takes {tensor.width} values"
        names = [spec.path for spec in one.fields]
        return [Mistake(f"{setting}.fields", names, problem, "List one field for each value")]
    known = math.prod(axis for axis in tensor.shape[1:] if axis is not None)
    if free and one.stacked and len(one.fields) % known:
        problem = f"lists {len(one.fields)} fields, which do not fill the shape {tensor.shape}"
        return [Mistake(f"{setting}.fields", len(one.fields), problem, "List as many as fit")]
    width = 1 if one.stacked else tensor.width or 1
    mistakes = []
    for i, spec in enumerate(one.fields):
        below = f"{setting}.fields[{i}]" if one.stacked else setting
        for key in ("missing", "null", "invalid"):
            value = getattr(spec, key)
            unfit = None if value is Choice.REJECT else default_problem(value, tensor.kind, width)
            if unfit is not None:
                way_out = "Write reject, nan (floats only) or a default of the input's type"
                mistakes.append(Mistake(f"{below}.{key}", value, unfit, way_out))
    return mistakes


def default_problem(value: object, kind: str, width: int) -> str | None:
    """Why a default does not fit an input of this kind with `width` values a record, or None."""
    if width > 1 and not (isinstance(value, float) and math.isnan(value)):
        if not isinstance(value, list) or len(value) != width:
            return f"is no list of {width} values"
        problems = (default_problem(item, kind, 1) for item in value)
        return next((problem for problem in problems if problem is not None), None)
    if isinstance(value, list) and len(value) == 1 and width == 1:
        value = value[0]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in FLOATS:
        limit = float(np.finfo(np.float32 if kind == "float" else np.float64).max)
        fits = number and (math.isnan(value) or abs(value) <= limit)  # type: ignore[arg-type]
    elif kind in INTEGERS:
        limits = np.iinfo(kind)
        fits = number and isinstance(value, int) and limits.min <= value <= limits.max
    else:
        fits = isinstance(value, bool if kind == "bool" else str)
    return None if fits else f"does not fit an input of type {kind}"


def _check_output(setting: str, output: OutputSpec, tensor: Tensor) -> list[Mistake]:
    pick, keys = output.pick, tensor.keys
    if keys is None and tensor.kind not in KINDS:
        way_out = "Leave it out, or export the model without it"
        return [Mistake(setting, tensor.kind, "is a type of output not supported", way_out)]
    if pick is None:
        return []
    problem: str | None = None
    if keys is not None:
        if not isinstance(pick, str if keys == "string" else int):
            problem = f"is no key of type {keys}"
    elif not isinstance(pick, int):
        problem = "is no index"
    elif len(tensor.shape) < 2:
        problem = "asks for a part of an output that has one value a record"
    elif pick < 0 or (tensor.width is not None and pick >= tensor.width):
        problem = f"is out of range, the output has {tensor.width} values a record"
    way_out = "Pick an index from 0, or a key of the map, or leave `pick` out"
    return [] if problem is None else [Mistake(f"{setting}.pick", pick, problem, way_out)]
