"""Whether a model.yaml agrees with the signature of the model beside it."""

import math

import numpy as np

from pipeline.errors import Mistake
from pipeline.model import (
    FLOATS,
    INTEGERS,
    KINDS,
    Choice,
    InputSpec,
    ModelSpec,
    OutputSpec,
    Signature,
    Tensor,
)
from pipeline.signature_ids import check_ranking


def check_signature(spec: ModelSpec, signature: Signature, where: str = "") -> list[Mistake]:
    """Every point where model.yaml and the model disagree; `where` names the model.yaml."""
    prefix = f"{where or f'{spec.name}/{spec.version}/model.yaml'}: "
    given = {one.name: one for one in spec.inputs}
    named = given.keys() | {one.name for one in spec.forms}
    mistakes = [
        Mistake(f"{prefix}inputs.{name}", None, "is an input of the model that has no entry",
                "Say which fields of the event feed it")
        for name in signature.inputs if name not in named
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
    mistakes += check_ranking(spec, signature, prefix)
    if spec.threshold is not None and not mistakes:
        output = next(one for one in spec.outputs if one.column == spec.threshold.column)
        setting = f"{prefix}threshold.column"
        mistakes += _check_threshold(setting, output, signature.outputs[output.name])
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
    return _check_defaults(setting, one, tensor)


def _check_defaults(setting: str, one: InputSpec, tensor: Tensor) -> list[Mistake]:
    width = 1 if one.stacked else tensor.width or 1
    mistakes = []
    for i, spec in enumerate(one.fields):
        below = f"{setting}.fields[{i}]" if one.stacked else setting
        for key in ("missing", "null", "invalid"):
            value = getattr(spec, key)
            problem = None if value is Choice.REJECT else _problem(value, tensor.kind, width)
            if problem is not None:
                way_out = "Write reject, nan (floats only) or a default of the input's type"
                mistakes.append(Mistake(f"{below}.{key}", value, problem, way_out))
    return mistakes


def _problem(value: object, kind: str, width: int) -> str | None:
    """Why a default does not fit an input of this kind with `width` values a record, or None."""
    if width > 1 and not (isinstance(value, float) and math.isnan(value)):
        if not isinstance(value, list) or len(value) != width:
            return f"is no list of {width} values"
        problems = (_problem(item, kind, 1) for item in value)
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


def _check_threshold(setting: str, output: OutputSpec, tensor: Tensor) -> list[Mistake]:
    vector = output.pick is None and (tensor.keys is not None or tensor.width != 1)
    if vector or (tensor.keys is None and tensor.kind not in (*FLOATS, *INTEGERS)):
        way_out = "Pick one number of the output with `pick`, or name another column"
        return [Mistake(setting, output.column, "is no single number", way_out)]
    return []
