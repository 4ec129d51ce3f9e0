"""Scoring: every row of a batch ends in exactly one of accepted and rejects."""

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Batch, Partition, Scored, Span
from pipeline.decode import DECODERS
from pipeline.model import FieldSpec, InputSpec, ModelSpec, OutputSpec, Signature, Tensor, Threshold
from pipeline.recipe import Recipe, each, signature_recipe
from pipeline.schema import job_schema
from pipeline.score import Scorer

SPEC = ModelSpec(
    name="fraud",
    version="3",
    sha256="",
    inputs=(InputSpec("x", (FieldSpec("a", missing=math.nan), FieldSpec("b")), stacked=True),),
    outputs=(OutputSpec("sum", "score"), OutputSpec("both", "vector")),
    threshold=Threshold("score", 3.0, "flagged"),
)
SIGNATURE = Signature(
    {"x": Tensor("float", (None, 2))},
    {"sum": Tensor("float", (None,)), "both": Tensor("float", (None, 2))},
)
PASSED = {"id": "int64", "geo": {"country": "string"}, "tags": ["string"], "text": "string"}


class Adding:
    """A model that adds, and fails as a whole for the one value that it dislikes."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        x = feeds["x"]
        if (x == 666).any():
            raise RuntimeError("the beast")
        if (x == 667).any():
            return {"sum": x.sum(axis=1)[:-1], "both": x}
        return {"sum": x.sum(axis=1), "both": x}


def scorer(max_row_bytes: int = 900_000, event_time: str | None = None) -> Scorer:
    recipe = signature_recipe(SPEC, SIGNATURE, PASSED, DECODERS["json"], event_time)
    schema = job_schema(recipe.fields)
    return Scorer(
        recipe, Adding(), schema,
        name="fraud", version="3", max_row_bytes=max_row_bytes, now=lambda: 12.5,
    )  # fmt: skip


def batch(*values: bytes | None, partitions: int = 1) -> Batch:
    rows = len(values)
    cuts = np.linspace(0, rows, partitions + 1).astype(int)
    spans = tuple(
        Span(Partition("fraud.events", number), int(low), int(high), int(high - low))
        for number, (low, high) in enumerate(pairwise(cuts))
    )
    return Batch(
        id=7,
        spans=spans,
        offsets=pa.array(range(rows), pa.int64()),
        timestamps=pa.array([1000 + row for row in range(rows)], pa.int64()),
        keys=pa.array([b"k" if row % 2 else None for row in range(rows)], pa.binary()),
        values=pa.array(values, pa.binary()),
    )


def event(a: float, b: float, **more: Any) -> bytes:
    return json.dumps({"a": a, "b": b, **more}).encode()


def answered(scored: Scored, rows: int) -> None:
    """Check what holds for every answer."""
    scored.rows.validate(full=True)
    scored.predictions.validate(full=True)
    numbers = [*scored.accepted.tolist(), *(reject.row for reject in scored.rejects)]
    assert sorted(numbers) == list(range(rows))
    assert scored.rows.num_rows == len(scored.predictions) == len(scored.accepted)
    assert (np.diff(scored.accepted) > 0).all()
    for row, line in zip(scored.rows.to_pylist(), scored.predictions.to_pylist(), strict=True):
        prediction = json.loads(line)
        assert prediction["source"] == [row["partition"], row["offset"]]
        assert np.float32(prediction["score"]) == np.float32(row["score"])
        assert prediction["flagged"] == row["flagged"]
        assert prediction["id"] == row["id"]


def test_row_and_prediction_say_the_same() -> None:
    """Standard columns, passed fields, outputs and the threshold stand in row and prediction."""
    value = event(1, 2.5, id=5, geo={"country": "NL"}, tags=["x", None], text="line\nbreak é")
    scored = scorer().score(batch(value, value, partitions=2))
    answered(scored, 2)
    row = scored.rows.to_pylist()[1]
    assert {key: row[key] for key in ("topic", "partition", "offset", "key")} == {
        "topic": "fraud.events", "partition": 1, "offset": 1, "key": b"k",
    }  # fmt: skip
    assert row["event_time"].timestamp() == 1.001
    assert row["scored_at"].timestamp() == 12.5
    assert (row["model_name"], row["model_version"]) == ("fraud", "3")
    assert json.loads(scored.predictions[1].as_py()) == {
        "source": [1, 1],
        "id": 5,
        "geo": {"country": "NL"},
        "tags": ["x", None],
        "text": "line\nbreak é",
        "score": 3.5,
        "vector": [1, 2.5],
        "flagged": True,
        "model": "fraud",
        "model_version": "3",
    }
    assert scored.rows.schema == job_schema(
        signature_recipe(SPEC, SIGNATURE, PASSED, DECODERS["json"]).fields
    )
    assert scored.batch_id == 7
    assert scored.seconds > 0


def test_empty_batch_and_batch_of_rejects() -> None:
    """No rows at all, or none accepted, still give the schema and no predictions."""
    for values in ((), (None, b"x")):
        scored = scorer().score(batch(*values))
        answered(scored, len(values))
        assert scored.rows.num_rows == 0
        assert scored.rows.schema.metadata[b"headrace.format"] == b"1"


def test_model_that_fails_is_bisected_to_the_record() -> None:
    """One record that fails the whole batch becomes one reject with the model's words."""
    values = [event(row, 1) for row in range(50)]
    values[17] = event(666, 1)
    scored = scorer().score(batch(*values, partitions=3))
    answered(scored, 50)
    (reject,) = scored.rejects
    assert (reject.row, reject.stage, reject.exception, reject.message) == (
        17, "score", "RuntimeError", "the beast",
    )  # fmt: skip
    assert scored.rows.column("score").to_pylist()[20] == 22


def test_output_of_another_length_is_found() -> None:
    """A model that gives fewer rows than it got never shifts scores between records."""
    scored = scorer().score(batch(event(1, 2), event(667, 1), event(3, 4)))
    answered(scored, 3)
    (reject,) = scored.rejects
    assert (reject.row, reject.stage) == (1, "score")
    assert "has 0 rows, the batch has 1" in reject.message


def test_outputs_that_are_not_finite_are_rejects() -> None:
    """NaN and infinity name their column; the neighbours go on."""
    values = (event(1, 1), json.dumps({"b": 2}).encode(), event(3e38, 3e38), event(2, 2))
    with np.errstate(over="ignore"):
        scored = scorer().score(batch(*values))
    answered(scored, 4)
    assert scored.accepted.tolist() == [0, 3]
    assert {(r.row, r.stage, r.exception) for r in scored.rejects} == {
        (1, "score", "NonFinite"),
        (2, "score", "NonFinite"),
    }
    assert "'score'" in scored.rejects[0].message


def test_rows_too_large_are_rejects() -> None:
    """What fits no Kafka record is a dead letter of the stage write."""
    values = (event(1, 1), event(1, 1, text="x" * 2000), event(1, 1, tags=["y" * 30] * 60))
    scored = scorer(max_row_bytes=1000).score(batch(*values))
    answered(scored, 3)
    assert [(r.row, r.stage) for r in scored.rejects] == [(1, "write"), (2, "write")]


def test_event_time_of_the_event_comes_first() -> None:
    """Where the config names a field, it is the row's event time, also after rejects."""
    values = (event(1, 1, ts=5000), event(666, 1, ts=1), event(1, 1), event(1, 1, ts=7000))
    scored = scorer(event_time="ts").score(batch(*values))
    answered(scored, 4)
    times = [time.timestamp() for time in scored.rows.column("event_time").to_pylist()]
    assert times == [5, 7]


def own(decode: Any, rows: Any) -> Scorer:
    fields = tuple(job_fields)
    recipe = Recipe(decode, lambda events: {"x": np.array(events[:], np.float32)}, rows, fields)
    schema = job_schema(fields)
    return Scorer(recipe, Adding(), schema, name="m", version="1")


job_fields = [
    pa.field("score", pa.float32()),
    pa.field("words", pa.map_(pa.string(), pa.float32())),
]


def test_recipe_of_ones_own() -> None:
    """Lists, arrays and dicts are all taken as columns; what `rows` raises rejects its record."""

    def rows(events: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        if [13.0, 13.0] in events:
            raise KeyError("unlucky")
        return {"score": pa.array(outputs["sum"]), "words": [{"a": float(e[0])} for e in events]}

    decode = each(lambda value: [float(value)] * 2)
    scored = own(decode, rows).score(batch(b"1", b"x", b"13", b"nan", b"2"))
    assert scored.accepted.tolist() == [0, 4]
    assert [(r.row, r.stage, r.exception) for r in scored.rejects] == [
        (1, "decode", "ValueError"),
        (2, "score", "KeyError"),
        (3, "score", "NonFinite"),
    ]
    assert json.loads(scored.predictions[1].as_py())["words"] == {"a": 2.0}
    assert scored.rows.column("words").to_pylist() == [[("a", 1.0)], [("a", 2.0)]]


def test_decode_that_raises_is_bisected() -> None:
    """Whatever a recipe's decode raises belongs to the record that it comes from."""
    decode = each(lambda value: [[1.0, 1.0], [2.0, 2.0]][len(value)])
    rows = lambda events, outputs: {"score": outputs["sum"], "words": [None] * len(events)}  # noqa: E731
    scored = own(decode, rows).score(batch(b"", b"too long", b"1"))
    assert scored.accepted.tolist() == [0, 2]
    assert [(r.row, r.stage, r.exception) for r in scored.rejects] == [(1, "decode", "IndexError")]


def test_memory_error_is_nobodys_record() -> None:
    """A machine without memory fails the call; it makes no dead letters."""

    def rows(*_: Any) -> dict[str, Any]:
        raise MemoryError

    with pytest.raises(MemoryError):
        own(each(lambda _: [1.0, 1.0]), rows).score(batch(b"1"))


VALUES = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.builds(event, st.sampled_from([0, 1.5, 3e38, 666, 667, 1e39]), st.floats(-9, 9, width=32)),
    st.builds(lambda n: event(1, 2, text="x" * n), st.integers(0, 1200)),
    st.just(b'{"b": 1}'),
)


@given(st.lists(VALUES, max_size=30), st.integers(1, 3))
def test_each_row_ends_once(values: list[bytes | None], partitions: int) -> None:
    """Accepted rows and rejects are the batch's rows, each once, whatever the records hold."""
    with np.errstate(over="ignore"):
        scored = scorer(max_row_bytes=1000).score(batch(*values, partitions=partitions))
    answered(scored, len(values))
