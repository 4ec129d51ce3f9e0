"""Recipes: made of a signature, lifted from one function, or found by import path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.decode import DECODERS
from pipeline.errors import ConfigInvalid
from pipeline.model import (
    FieldSpec,
    InputSpec,
    ModelFiles,
    ModelSpec,
    OutputSpec,
    Signature,
    Tensor,
    Threshold,
)
from pipeline.recipe import Recipe, each, find_maker, make_recipe, signature_recipe

SPEC = ModelSpec(
    name="m",
    version="1",
    sha256="",
    inputs=(InputSpec("x", (FieldSpec("a"), FieldSpec("b")), stacked=True),),
    outputs=(
        OutputSpec("p", "score"),
        OutputSpec("v", "second", 1),
        OutputSpec("m", "yes", "yes"),
        OutputSpec("m", "all"),
    ),
    threshold=Threshold("score", 0.5, "flagged"),
)
SIGNATURE = Signature(
    {"x": Tensor("float", (None, 2))},
    {
        "p": Tensor("float", (None, 1)),
        "v": Tensor("float", (None, 3)),
        "m": Tensor("sequence(map(string,float))", ()),
    },
)
FILES = ModelFiles(SPEC, b"", "m", "1")


def column(*values: bytes | None) -> pa.Array:
    return pa.array(values, pa.binary())


def test_signature_makes_a_recipe_without_code() -> None:
    """Fields, feeds and rows follow from model.yaml and the signature."""
    recipe = signature_recipe(SPEC, SIGNATURE, {"id": "int64"}, DECODERS["json"])
    assert [field.name for field in recipe.fields] == [
        "id", "score", "second", "yes", "all", "flagged",
    ]  # fmt: skip
    decoded = recipe.decode(column(b'{"a": 1, "b": 2, "id": 5}', b'{"a": 3, "b": 4}'))
    assert recipe.feeds(decoded.events)["x"].tolist() == [[1, 2], [3, 4]]
    maps = [{"yes": 0.5, "no": 0.5}, {"yes": 1.0, "no": 0.0}]
    outputs = {
        "p": np.array([[0.5], [0.25]], np.float32),
        "v": np.arange(6, dtype=np.float32).reshape(2, 3),
        "m": maps,
    }
    rows = recipe.rows(decoded.events, outputs)
    assert {name: list(values) for name, values in rows.items()} == {
        "id": [5, None],
        "score": [0.5, 0.25],
        "second": [1, 4],
        "yes": [0.5, 1.0],
        "all": maps,
        "flagged": [True, False],
    }


def test_events_slice_as_one() -> None:
    """A slice of events holds the same rows of feeds and columns."""
    recipe = signature_recipe(SPEC, SIGNATURE, {"id": "int64"}, DECODERS["json"])
    values = (b'{"a": %d, "b": 0, "id": %d}' % (i, i) for i in range(5))
    events = recipe.decode(column(*values)).events
    part = events[1:3]
    assert len(part) == 2
    assert recipe.feeds(part)["x"][:, 0].tolist() == [1, 2]
    assert part.columns["id"] == [1, 2]


def test_each_lifts_one_function() -> None:
    """ValueError rejects the record, a tombstone is never asked about."""
    decoded = each(int)(column(b"1", b"x", None, b"2"))
    assert list(decoded.events[:]) == [1, 2]
    assert decoded.accepted.tolist() == [0, 3]
    assert [(r.row, r.stage, r.exception) for r in decoded.rejects] == [
        (1, "decode", "ValueError"),
        (2, "decode", "Tombstone"),
    ]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "a_users_recipe"
    (tmp_path / f"{name}.py").write_text(
        "from pipeline.recipe import Recipe, each\n"
        "def recipe(files, signature):\n"
        "    return Recipe(each(float), lambda e: {}, lambda e, o: {}, ())\n"
        "def other(files, signature):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_recipe_is_found_by_import_path(module: str) -> None:
    """The user's function makes the recipe."""
    recipe = make_recipe(find_maker(f"{module}:recipe"), FILES, SIGNATURE)
    assert isinstance(recipe, Recipe)
    assert list(recipe.decode(column(b"1.5")).events[:]) == [1.5]


@pytest.mark.parametrize("path", ["module", "no_such_module:x", "{}:missing", "{}:other", ":x"])
def test_wrong_import_paths_are_mistakes(module: str, path: str) -> None:
    """What can't be imported, or is no recipe, is a mistake of the setting `recipe`."""
    with pytest.raises(ConfigInvalid) as caught:
        make_recipe(find_maker(path.format(module)), FILES, SIGNATURE)
    assert caught.value.mistakes[0].setting == "recipe"


def test_fields_of_maps_are_arrow_maps() -> None:
    """A sequence of maps becomes an Arrow map."""
    recipe = signature_recipe(SPEC, SIGNATURE, {}, DECODERS["json"])
    assert recipe.fields[3] == pa.field("all", pa.map_(pa.string(), pa.float32()))
