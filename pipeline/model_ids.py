"""The parts of a model.yaml about ids: vocabularies, ids, their forms as inputs, the ranking."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.model import Form, FormSpec, IdSpec, RankingSpec
from pipeline.model_reader import Reader
from pipeline.vocabulary import ID_TYPES, Vocabulary

LISTS_ONLY = (Form.PADDED, Form.MASK, Form.LENGTH, Form.MULTI_HOT, Form.EACH)
_SETTINGS = {
    Form.PADDED: ("newest", "pad", "side"),
    Form.MASK: ("newest", "side"),
    Form.LENGTH: ("newest",),
    Form.MULTI_HOT: ("newest",),
}


def read_vocabularies(reader: Reader, value: object, folder: Path) -> dict[str, Vocabulary]:
    """The vocabularies whose files stand beside the model.yaml, an id a line."""
    found = {}
    for name, item in reader.mapping("vocabularies", value, None).items():
        path = f"vocabularies.{name}"
        below = reader.mapping(path, item, ("file", "type", "sha256", "first"))
        if not below:
            continue
        file = reader.text(f"{path}.file", below.get("file"), "items.txt")
        if file and Path(file).name != file:
            reader.wrong(f"{path}.file", file, "is no plain name", "Put it beside model.yaml")
            continue
        first = _count(reader, f"{path}.first", below.get("first", 0), 0) or 0
        kind = below.get("type")
        if kind not in ID_TYPES:
            reader.wrong(f"{path}.type", kind, "is not known", f"Write {' or '.join(ID_TYPES)}")
        ids = _ids(reader, path, folder / file, below) if file and kind in ID_TYPES else None
        if ids is not None:
            found[name] = Vocabulary(name, ids, first)
    return found


def _ids(reader: Reader, path: str, file: Path, below: Mapping[str, Any]) -> pa.Array | None:
    try:
        content = file.read_bytes()
        lines = content.decode().removesuffix("\n").split("\n")
    except OSError as failure:
        problem = f"cannot be read: {failure.strerror}"
        reader.wrong(f"{path}.file", file.name, problem, "Put it beside model.yaml")
        return None
    except UnicodeDecodeError as failure:
        reader.wrong(
            f"{path}.file", file.name, f"is no UTF-8: {failure.reason}", "Save it as UTF-8"
        )
        return None
    digest = hashlib.sha256(content).hexdigest()
    if below.get("sha256") != digest:
        problem = f"differs from {file.name}, which has {digest}"
        way_out = "Put back the file that the model was trained with"
        reader.wrong(f"{path}.sha256", below.get("sha256"), problem, way_out)
    try:
        ids = pc.cast(pa.array(lines, pa.string()), ID_TYPES[below["type"]])
    except pa.ArrowInvalid as failure:
        problem = f"holds what is no {below['type']}: {failure}"
        reader.wrong(f"{path}.file", file.name, problem, "Write one id a line")
        return None
    if pc.count_distinct(ids).as_py() != len(ids):
        way_out = "Write each id once, at its own index"
        reader.wrong(f"{path}.file", file.name, "holds an id twice", way_out)
        return None
    return ids


def read_ids(
    reader: Reader, value: object, vocabularies: Mapping[str, Vocabulary]
) -> tuple[IdSpec, ...]:
    """Fields of the event that hold ids."""
    found = [
        _id(reader, name, item, vocabularies)
        for name, item in reader.mapping("ids", value, None).items()
    ]
    return tuple(one for one in found if one is not None)


def _id(
    reader: Reader, name: str, value: object, vocabularies: Mapping[str, Vocabulary]
) -> IdSpec | None:
    path = f"ids.{name}"
    keys = ("field", "vocabulary", "list", "unknown", "empty", "missing", "null", "invalid")
    below = reader.mapping(path, value, keys)
    if not below:
        return None
    vocabulary = _named(reader, f"{path}.vocabulary", below.get("vocabulary"), vocabularies)
    many = below.get("list", False)
    if not isinstance(many, bool):
        reader.wrong(f"{path}.list", many, "is neither true nor false", "Write true for lists")
        many = False
    choices: dict[str, Any] = {
        key: below[key] for key in ("missing", "null", "invalid") if key in below
    }
    optional = choices.get("missing") == "all"
    if optional:
        del choices["missing"]
        if not many or "." in str(below.get("field", name)) or choices.get("null", "all") != "all":
            way_out = "Write it for a list that is a field of its own, and leave null out"
            reader.wrong(f"{path}.missing", "all", "does not fit here", way_out)
        choices.pop("null", None)
    field = reader.field(path, {"name": below.get("field", name), **choices})
    if vocabulary is None:
        return None
    _check_defaults(reader, path, choices, vocabulary, many)
    unknown = below.get("unknown", "reject")
    index = isinstance(unknown, int) and not isinstance(unknown, bool)
    if not (unknown == "reject" or (unknown == "drop" and many) or index):
        way_out = "Write reject, the index that stands for unknown ids, or drop (lists only)"
        reader.wrong(f"{path}.unknown", unknown, "is no choice", way_out)
    elif index and not 0 <= unknown < vocabulary.size:
        problem = f"is no index of vocabulary {vocabulary.name!r}, which has {vocabulary.size}"
        reader.wrong(f"{path}.unknown", unknown, problem, "Write one from 0 to below that")
    empty = below.get("empty", "reject")
    if empty not in ("reject", "keep"):
        reader.wrong(f"{path}.empty", empty, "is not known", "Write reject or keep")
    return IdSpec(name, field, vocabulary, many, unknown, str(empty), optional)


def _check_defaults(
    reader: Reader, path: str, choices: Mapping[str, Any], vocabulary: Vocabulary, many: bool
) -> None:
    kind = str if pa.types.is_string(vocabulary.ids.type) else int
    for key, value in choices.items():
        items = value if many and isinstance(value, list) else [value]
        fits = many == isinstance(value, list)
        fits = fits and all(isinstance(one, kind) and not isinstance(one, bool) for one in items)
        if value != "reject" and not fits:
            way_out = "Write reject, or " + ("a list of ids such as []" if many else "an id")
            reader.wrong(f"{path}.{key}", value, "is no choice", way_out)


def read_form(
    reader: Reader, name: str, value: object, ids: Mapping[str, IdSpec]
) -> FormSpec | None:
    """An input that is made of ids, or of the ranking's settings."""
    path = f"inputs.{name}"
    forms = {one.value: one for one in Form}
    below = reader.mapping(path, value, ("ids", "form", "newest", "pad", "side"))
    form = forms.get(str(below.get("form")))
    if form is None:
        problem, way_out = "is not known", f"Write one of {', '.join(forms)}"
        reader.wrong(f"{path}.form", below.get("form"), problem, way_out)
        return None
    allowed = ("form", *_SETTINGS.get(form, ()))
    if form not in (Form.BLOCKED, Form.K):
        allowed = ("ids", *allowed)
    for key in below.keys() - set(allowed):
        reader.wrong(f"{path}.{key}", below[key], f"does not go with {form.value}", "Leave it out")
    if "ids" not in allowed:
        return FormSpec(name, form)
    source = _named(reader, f"{path}.ids", below.get("ids"), ids)
    if source is not None and source.many != (form in LISTS_ONLY):
        kind = "a list of ids" if source.many else "one id"
        way_out = "Write index for one id, another form for a list"
        reader.wrong(f"{path}.form", form.value, f"does not fit {kind}", way_out)
    newest = below.get("newest")
    if newest is not None:
        newest = _count(reader, f"{path}.newest", newest, 1)
    side = below.get("side", "left")
    if side not in ("left", "right"):
        reader.wrong(f"{path}.side", side, "is not known", "Write left or right")
    pad = _count(reader, f"{path}.pad", below.get("pad", 0), 0) or 0
    return FormSpec(name, form, str(below.get("ids")), newest, pad, side == "left")


def read_ranking(
    reader: Reader,
    value: object,
    vocabularies: Mapping[str, Vocabulary],
    ids: Mapping[str, IdSpec],
) -> RankingSpec | None:
    """What is ranked, by which output."""
    keys = ("vocabulary", "scores", "indices", "seen", "candidates")
    below = reader.mapping("ranking", value, keys)
    vocabulary = _named(reader, "ranking.vocabulary", below.get("vocabulary"), vocabularies)
    scores = reader.text("ranking.scores", below.get("scores"), "scores")
    indices = below.get("indices")
    if indices is not None:
        indices = reader.text("ranking.indices", indices, "top")
    for key in ("seen", "candidates"):
        if key not in below:
            continue
        source = _named(reader, f"ranking.{key}", below[key], ids)
        if source is not None and not (source.many and source.vocabulary is vocabulary):
            way_out = "Name ids with `list: true` and the ranking's own vocabulary"
            reader.wrong(f"ranking.{key}", below[key], "is no list of ranked items", way_out)
    if vocabulary is None:
        return None
    return RankingSpec(vocabulary, scores, indices, below.get("seen"), below.get("candidates"))


def _named(reader: Reader, path: str, value: object, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str) and value in known:
        return known[value]
    names = ", ".join(known) or "none that is free of mistakes"
    reader.wrong(path, value, "is not declared", f"Declared are {names}")
    return None


def _count(reader: Reader, path: str, value: object, least: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    reader.wrong(path, value, "is no such number", f"Write a whole number from {least}")
    return None
