"""Whether forms and ranking of a model.yaml agree with the signature of the model beside it."""

from collections.abc import Iterator

from pipeline.errors import Mistake
from pipeline.model import FLOATS, INTEGERS, Form, FormSpec, ModelSpec, Signature, Tensor
from pipeline.schema import ITEMS, SCORES

_NUMBERS = (*FLOATS, *INTEGERS, "bool")
_KINDS = {
    Form.INDEX: INTEGERS,
    Form.EACH: INTEGERS,
    Form.PADDED: INTEGERS,
    Form.K: INTEGERS,
    Form.LENGTH: (*FLOATS, *INTEGERS),
    Form.MASK: _NUMBERS,
    Form.MULTI_HOT: _NUMBERS,
    Form.BLOCKED: _NUMBERS,
}
_RANKS_ONLY = (Form.EACH, Form.BLOCKED, Form.K)


def check_ranking(spec: ModelSpec, signature: Signature, prefix: str) -> list[Mistake]:
    """Every point where they disagree; `prefix` names the model.yaml."""
    mistakes = []
    for form in spec.forms:
        setting = f"{prefix}inputs.{form.name}"
        if form.name not in signature.inputs:
            way_out = f"The model's inputs are {', '.join(signature.inputs)}"
            mistakes.append(Mistake(setting, form.name, "is no input of the model", way_out))
        else:
            mistakes += _check_form(setting, spec, form, signature.inputs[form.name])
    if spec.ranking is None:
        return mistakes
    outputs = {"scores": spec.ranking.scores, "indices": spec.ranking.indices}
    for key, name in outputs.items():
        if name is not None and name not in signature.outputs:
            way_out = f"The model's outputs are {', '.join(signature.outputs)}"
            problem = "is no output of the model"
            mistakes.append(Mistake(f"{prefix}ranking.{key}", name, problem, way_out))
    mistakes += _check_columns(spec, signature, prefix)
    if not mistakes:
        mistakes += _check_scores(spec, signature, f"{prefix}ranking")
    return mistakes


def _check_form(setting: str, spec: ModelSpec, form: FormSpec, tensor: Tensor) -> Iterator[Mistake]:
    kinds = _KINDS[form.form]
    if tensor.kind not in kinds:
        problem = f"takes {tensor.kind}, which {form.form.value} does not give"
        yield Mistake(setting, form.form.value, problem, f"Export it with {' or '.join(kinds)}")
        return
    if form.form in _RANKS_ONLY and spec.ranking is None:
        way_out = "Describe the ranking, or use another form"
        yield Mistake(setting, form.form.value, "belongs to a model with `ranking`", way_out)
        return
    shape = list(tensor.shape)
    if form.form is Form.K:
        if len(shape) != 1:
            yield Mistake(setting, shape, "is no vector of one number", "Give it the shape [1]")
        return
    if not shape or shape[0] is not None:
        way_out = "Export the model with a dynamic batch axis as its first"
        yield Mistake(setting, shape, "has no free batch axis", way_out)
    elif form.form in (Form.INDEX, Form.LENGTH, Form.EACH):
        if tensor.width != 1:
            problem = f"has not the one value a record that {form.form.value} gives"
            yield Mistake(setting, shape, problem, "Choose another form")
    elif len(shape) != 2:
        yield Mistake(setting, shape, "has not two axes", "Export it as [batch, width]")
    elif form.form in (Form.PADDED, Form.MASK):
        yield from _check_padded(setting, spec, form, tensor)
    else:
        yield from _check_width(setting, spec, form, tensor)


def _check_padded(
    setting: str, spec: ModelSpec, form: FormSpec, tensor: Tensor
) -> Iterator[Mistake]:
    limit = tensor.width
    if form.newest is None or (limit is not None and form.newest > limit):
        problem = "has no bound" if limit is None else f"does not fit the {limit} that it takes"
        yield Mistake(f"{setting}.newest", form.newest, problem, "Say how many of a list count")
    size = next(one.vocabulary.size for one in spec.ids if one.name == form.ids)
    if form.pad >= size:
        problem = f"is no index of a vocabulary of {size}"
        yield Mistake(f"{setting}.pad", form.pad, problem, "Write the index that means nothing")


def _check_width(
    setting: str, spec: ModelSpec, form: FormSpec, tensor: Tensor
) -> Iterator[Mistake]:
    if form.form is Form.BLOCKED:
        assert spec.ranking is not None
        vocabulary = spec.ranking.vocabulary
    else:
        vocabulary = next(one.vocabulary for one in spec.ids if one.name == form.ids)
    if tensor.width is not None and tensor.width != vocabulary.size:
        problem = (
            f"is {tensor.width} wide, and vocabulary {vocabulary.name!r} has {vocabulary.size}"
        )
        yield Mistake(setting, list(tensor.shape), problem, _OTHER_VOCABULARY)


_OTHER_VOCABULARY = "Put the vocabulary there that the model was trained with, or mend its `first`"


def _check_columns(spec: ModelSpec, signature: Signature, prefix: str) -> Iterator[Mistake]:
    assert spec.ranking is not None
    taken = {ITEMS, SCORES, spec.ranking.scores, spec.ranking.indices}
    for output in spec.outputs:
        setting = f"{prefix}outputs.{output.name}"
        if output.name in taken:
            problem = "belongs to the ranking, which makes columns of it"
            yield Mistake(setting, output.name, problem, "Leave it out")
        elif spec.pairs:
            problem = "has a value for each candidate, not for each record"
            yield Mistake(setting, output.name, problem, "Leave it out")
        elif output.name in signature.outputs and signature.outputs[output.name].keys is not None:
            problem = "is a sequence of maps, which a model that ranks cannot keep"
            yield Mistake(setting, output.name, problem, "Leave it out, or export it as a tensor")


def _check_scores(spec: ModelSpec, signature: Signature, setting: str) -> Iterator[Mistake]:
    ranking = spec.ranking
    assert ranking is not None
    scores = signature.outputs[ranking.scores]
    if scores.kind not in FLOATS:
        problem = f"has the type {scores.kind}, scores are {' or '.join(FLOATS)}"
        yield Mistake(f"{setting}.scores", ranking.scores, problem, "Name the output of scores")
    each = [one for one in spec.forms if one.form is Form.EACH]
    if each:
        candidates = next((one for one in spec.ids if one.name == ranking.candidates), None)
        if (
            candidates is None
            or candidates.optional
            or {one.ids for one in each} != {candidates.name}
        ):
            problem = "are not the ids of the form each, or may be absent"
            way_out = "Name the list that is scored, and require it"
            yield Mistake(f"{setting}.candidates", ranking.candidates, problem, way_out)
        if ranking.indices is not None or scores.width != 1:
            problem = "has not one score for each candidate"
            yield Mistake(
                f"{setting}.scores", list(scores.shape), problem, "Leave the form each out"
            )
    elif ranking.indices is not None:
        forms = {one.form for one in spec.forms}
        if Form.K not in forms:
            problem = "are chosen in a number that the settings cannot change"
            way_out = "Export the model with an input [1] of the form k, or take all its scores"
            yield Mistake(f"{setting}.indices", ranking.indices, problem, way_out)
        if ranking.candidates is not None and Form.BLOCKED not in forms:
            problem = "are unknown to the graph that chooses"
            way_out = "Export the model with an input of the form blocked, or take all its scores"
            yield Mistake(f"{setting}.candidates", ranking.candidates, problem, way_out)
    elif scores.width not in (None, ranking.vocabulary.size):
        vocabulary = ranking.vocabulary
        problem = (
            f"is {scores.width} wide, and vocabulary {vocabulary.name!r} has {vocabulary.size}"
        )
        yield Mistake(f"{setting}.scores", ranking.scores, problem, _OTHER_VOCABULARY)
