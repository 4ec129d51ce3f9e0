"""Recommendations from bytes to rows on ONNX Runtime: each kind of graph, each kind of bad input."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from jobs import ease
from jobs.ease import tensor
from pipeline import check
from pipeline.batch import Batch, Partition, Scored, Span
from pipeline.build import build_scorer
from pipeline.config import Config, Ranking
from pipeline.decode import DECODERS
from pipeline.edges.onnx import OnnxModel
from pipeline.errors import ConfigInvalid
from pipeline.job import prepare
from pipeline.model_folder import load_files
from pipeline.ranking import Ranker
from pipeline.recipe import signature_recipe
from pipeline.rules import read_rules
from pipeline.schema import job_schema
from pipeline.score import Scorer
from pipeline.settings import parse
from pipeline.signature import check_signature

ROOT = Path(__file__).resolve().parents[2]
# Six items; the ids are in the order of the file, not sorted.
ITEMS = [30, 10, 20, 60, 50, 40]
WEIGHTS = np.random.default_rng(0).normal(size=(6, 6))
# Items 10 and 20 score alike, whatever the history.
WEIGHTS[:, 2] = WEIGHTS[:, 1]
HISTORY = "history: {vocabulary: items, list: true, unknown: drop}"
EASE_YAML = """
inputs:
  history: {ids: history, form: multi_hot}
  blocked: {form: blocked}
  k: {form: k}
ranking: {vocabulary: items, scores: scores, indices: best, seen: history, candidates: candidates}
"""
CANDIDATES = "candidates: {vocabulary: items, list: true, unknown: drop, missing: all, empty: keep}"


def written(folder: Path, model: bytes, ids: str, rest: str, users: str | None = None) -> Path:
    made = folder / "shop" / "1"
    made.mkdir(parents=True)
    texts = {"items": ("int64", "".join(f"{one}\n" for one in ITEMS))}
    if users is not None:
        texts["users"] = ("string", users)
    vocabularies = ""
    for name, (kind, text) in texts.items():
        (made / f"{name}.txt").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        vocabularies += f"  {name}: {{file: {name}.txt, type: {kind}, sha256: {digest}}}\n"
    (made / "model.onnx").write_bytes(model)
    (made / "model.yaml").write_text(
        f"sha256: {hashlib.sha256(model).hexdigest()}\n"
        f"vocabularies:\n{vocabularies}ids:\n  {ids}\n{rest}"
    )
    return made


def score(folder: Path, *events: Any, **settings: Any) -> Scored:
    """Score events (bytes, or what becomes JSON) as a replica does; rows and JSON must agree."""
    files = load_files(folder)
    assert files.spec.ranking is not None
    onnx = OnnxModel(files.model, files.spec.wanted_outputs)
    assert check_signature(files.spec, onnx.signature) == []
    recipe = signature_recipe(files.spec, onnx.signature, {}, DECODERS["json"])
    rules = read_rules(Ranking(**settings), files.spec.ranking.vocabulary)
    ranker = Ranker(onnx, files.spec, onnx.signature, rules)
    schema = job_schema(recipe.fields)
    assert schema.field("items").type == pa.list_(pa.int64())
    assert schema.field("scores").type == pa.list_(pa.float32())
    values = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]
    scored = Scorer(recipe, ranker, schema, name="shop", version="1").score(batch_of(*values))
    scored.rows.validate(full=True)
    assert len(scored.accepted) + len(scored.rejects) == len(values)
    for row, line in zip(scored.rows.to_pylist(), scored.predictions.to_pylist(), strict=True):
        prediction = json.loads(line)
        assert prediction["items"] == row["items"]
        assert prediction["scores"] == pytest.approx(row["scores"])
        assert prediction["model"] == "shop"
    return scored


def batch_of(*values: bytes) -> Batch:
    rows = len(values)
    return Batch(
        id=1,
        spans=(Span(Partition("t", 0), 0, rows, rows),),
        offsets=pa.array(range(rows), pa.int64()),
        timestamps=pa.array([0] * rows, pa.int64()),
        keys=pa.nulls(rows, pa.binary()),
        values=pa.array(values, pa.binary()),
    )


def expected(history: list[int], barred: set[int], k: int) -> list[int]:
    """Return what a plain sort gives: by score, then by id."""
    totals = WEIGHTS[[ITEMS.index(one) for one in set(history)]].sum(axis=0)
    left = [one for one in ITEMS if one not in barred]
    return sorted(left, key=lambda one: (-round(totals[ITEMS.index(one)], 4), one))[:k]


def items(scored: Scored) -> list[list[int]]:
    found: list[list[int]] = scored.rows.column("items").to_pylist()
    return found


# -- graphs --------------------------------------------------------------------------------------


def all_scores() -> bytes:
    """A graph that knows nothing of ranking: history to a score for each item."""
    return ease.model(
        "all",
        [helper.make_node("MatMul", ["history", "weights"], ["scores"])],
        [tensor("history", TensorProto.FLOAT, ["batch", 6])],
        [tensor("scores", TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(WEIGHTS.astype(np.float32), "weights")],
    )


def top_only() -> bytes:
    """A graph that picks the best k, and is told of nothing that is blocked."""
    return ease.model(
        "top",
        [
            helper.make_node("MatMul", ["history", "weights"], ["all"]),
            helper.make_node("TopK", ["all", "k"], ["scores", "best"], axis=1),
        ],
        [tensor("history", TensorProto.FLOAT, ["batch", 6]), tensor("k", TensorProto.INT64, [1])],
        [
            tensor("scores", TensorProto.FLOAT, ["batch", None]),
            tensor("best", TensorProto.INT64, ["batch", None]),
        ],
        [numpy_helper.from_array(WEIGHTS.astype(np.float32), "weights")],
    )


def pair() -> bytes:
    """A graph of two inputs: the user's number and an item's index to one score."""
    table = np.arange(18, dtype=np.float32).reshape(3, 6) % 7
    return ease.model(
        "pair",
        [
            helper.make_node("Unsqueeze", ["user", "last"], ["users"]),
            helper.make_node("Unsqueeze", ["item", "last"], ["items"]),
            helper.make_node("Concat", ["users", "items"], ["places"], axis=1),
            helper.make_node("GatherND", ["table", "places"], ["score"]),
        ],
        [tensor("user", TensorProto.INT64, ["n"]), tensor("item", TensorProto.INT64, ["n"])],
        [tensor("score", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "last")],
    )


@pytest.fixture(params=["blocked in the graph", "top-k in the graph", "top-k in the replica"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a model that ranks by histories, in each form that a graph may have."""
    if request.param == "blocked in the graph":
        rest = EASE_YAML.replace(", candidates: candidates", "")
        return written(tmp_path, ease.export(WEIGHTS), HISTORY, rest)
    inputs = "inputs:\n  history: {ids: history, form: multi_hot}\n"
    ranking = "ranking: {vocabulary: items, scores: scores, seen: history"
    if request.param == "top-k in the replica":
        return written(tmp_path, all_scores(), HISTORY, f"{inputs}{ranking}}}")
    rest = f"{inputs}  k: {{form: k}}\n{ranking}, indices: best}}"
    return written(tmp_path, top_only(), HISTORY, rest)


# -- what is recommended -------------------------------------------------------------------------


def test_unseen_items_by_score_then_by_id(shop: Path) -> None:
    """Seen items are left out, scores fall, ties go by id; lists end where nothing is left."""
    histories = [[30], [40, 60], [50, 40, 60, 30]]
    scored = score(shop, *({"history": history} for history in histories), k=3)
    assert items(scored) == [expected(history, set(history), 3) for history in histories]
    assert [len(one) for one in items(scored)] == [3, 3, 2]
    for scores in scored.rows.column("scores").to_pylist():
        assert scores == sorted(scores, reverse=True)


def test_k_beyond_what_is_left_gives_shorter_lists(shop: Path) -> None:
    """Nothing fills up a list: with all items seen it is empty, and the record is answered."""
    scored = score(shop, {"history": [30, 10, 20, 60, 50]}, {"history": ITEMS}, k=100)
    assert items(scored) == [[40], []]


def test_seen_items_may_be_recommended(shop: Path) -> None:
    """With exclude_seen: false the history does not bar anything."""
    scored = score(shop, {"history": [30]}, k=6, exclude_seen=False)
    assert items(scored) == [expected([30], set(), 6)]


def test_lists_allow_and_deny(shop: Path, tmp_path: Path) -> None:
    """Only allowed items are recommended and none that are denied; unknown ids count for nothing."""
    allow, deny = tmp_path / "allow.txt", tmp_path / "deny.txt"
    allow.write_text("10\n20\n40\n30\n999\n")
    deny.write_text("20\n1000\n")
    scored = score(shop, {"history": [30]}, k=6, allow=allow, deny=deny)
    assert items(scored) == [expected([30], {20, 50, 60, 30}, 6)]


def test_batches_larger_than_a_run_are_whole(shop: Path) -> None:
    """Rows stay with their records where a batch takes several runs of the model."""
    histories = [[ITEMS[i % 6]] for i in range(5000)]
    scored = score(shop, *({"history": history} for history in histories), k=2)
    answers = {one: expected([one], {one}, 2) for one in ITEMS}
    assert items(scored) == [answers[one] for (one,) in histories]


def test_candidates_narrow_the_choice(tmp_path: Path) -> None:
    """An event may name what to choose from; without the field, everything is chosen from."""
    folder = written(tmp_path, ease.export(WEIGHTS), f"{HISTORY}\n  {CANDIDATES}", EASE_YAML)
    scored = score(
        folder,
        {"history": [30], "candidates": [10, 40, 30, 40, 77]},
        {"history": [30]},
        {"history": [30], "candidates": [77]},
        k=6,
    )
    others = {20, 60, 50, 30}
    assert items(scored) == [expected([30], others, 6), expected([30], {30}, 6), []]


def test_candidates_may_be_absent_where_another_field_is_mended(tmp_path: Path) -> None:
    """A choice for a bad history does not turn absent candidates into a missing field."""
    ids = HISTORY.replace("drop}", f"drop, invalid: [30]}}\n  {CANDIDATES}")
    folder = written(tmp_path, ease.export(WEIGHTS), ids, EASE_YAML)
    scored = score(folder, {"history": "x"}, {"history": ["x"], "candidates": None}, k=6)
    assert items(scored) == [expected([30], {30}, 6)] * 2


def test_pairs_are_scored_candidate_by_candidate(tmp_path: Path) -> None:
    """A model of (user, item) ranks each event's own candidates, of any number, each once."""
    folder = written(tmp_path, pair(), PAIR_IDS, PAIR_YAML, "ann\nbob\neve\n")
    scored = score(
        folder,
        {"user": "bob", "candidates": [30, 10, 20, 10]},
        {"user": "ann", "candidates": ITEMS, "history": [40]},
        {"user": "zoe", "candidates": [30]},
        {"user": "eve", "candidates": [77]},
        {"user": "eve", "candidates": [50], "history": [50]},
        k=2,
    )
    assert items(scored) == [[30, 20], [50, 60], []]
    assert scored.rows.column("scores").to_pylist() == [[6.0, 1.0], [4.0, 3.0], []]
    assert [(one.row, one.exception) for one in scored.rejects] == [
        (2, "UnknownId"),
        (3, "EmptyList"),
    ]
    assert "'zoe'" in scored.rejects[0].message


PAIR_IDS = """\
user: {vocabulary: users}
  candidates: {vocabulary: items, list: true, unknown: drop}
  history: {vocabulary: items, list: true, unknown: drop, missing: [], empty: keep}
"""
PAIR_YAML = """
inputs:
  user: {ids: user, form: index}
  item: {ids: candidates, form: each}
ranking: {vocabulary: items, scores: score, candidates: candidates, seen: history}
"""


# -- bad input -----------------------------------------------------------------------------------

BAD = {
    "unknown items only": ({"history": [77, 78]}, "EmptyList", "no id that the model knows"),
    "empty": ({"history": []}, "EmptyList", "empty: reject"),
    "a null in it": ({"history": [10, None]}, "InvalidField", "got `null`"),
    "a string in it": ({"history": [10, "20"]}, "InvalidField", "got `str`"),
    "a float in it": ({"history": [10, 20.5]}, "InvalidField", "got `float`"),
    "too large a number in it": ({"history": [10**30]}, "InvalidField", "'history'"),
    "no list": ({"history": 10}, "InvalidField", "got `int`"),
    "null": ({"history": None}, "NullField", "is null"),
    "missing": ({"user": 1}, "MissingField", "is missing"),
    "no JSON": (b'{"history": [10', "MalformedJSON", "no valid JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_one_dead_letter(tmp_path: Path, name: str) -> None:
    """What cannot be ranked says why, and its neighbours are ranked."""
    event, exception, message = BAD[name]
    rest = EASE_YAML.replace(", candidates: candidates", "")
    folder = written(tmp_path, ease.export(WEIGHTS), HISTORY, rest)
    scored = score(folder, {"history": [30]}, event, {"history": [40]}, k=2)
    assert scored.accepted.tolist() == [0, 2]
    (reject,) = scored.rejects
    assert (reject.row, reject.stage, reject.exception) == (1, "decode", exception)
    assert message in reject.message
    assert items(scored) == [expected([one], {one}, 2) for one in (30, 40)]


def test_repeated_and_unknown_items_count_once_and_not_at_all(shop: Path) -> None:
    """A history with duplicates and strangers is that of its different known items."""
    scored = score(shop, {"history": [30, 77, 30, 40, 30]}, {"history": [30, 40]}, k=4)
    first, second = scored.rows.select(["items", "scores"]).to_pylist()
    assert first == second


def test_the_choices_for_bad_histories_are_kept(tmp_path: Path) -> None:
    """Where model.yaml says so, a bad history counts as none, and none is ranked all the same."""
    ids = "history: {vocabulary: items, list: true, unknown: drop, empty: keep, missing: [], invalid: [30]}"
    rest = EASE_YAML.replace(", candidates: candidates", "")
    folder = written(tmp_path, ease.export(WEIGHTS), ids, rest)
    scored = score(folder, {}, {"history": None}, {"history": ["x"]}, {"history": [77]}, k=2)
    assert not scored.rejects
    # Without a history all scores are zero: ties go by id where the graph sees indices in its order.
    none = items(scored)[0]
    assert items(scored) == [none, none, expected([30], {30}, 2), none]


def test_unknown_items_may_be_rejected_or_have_an_index(tmp_path: Path) -> None:
    """Strangers make a dead letter that names the first, or stand for the index chosen."""
    rest = EASE_YAML.replace(", candidates: candidates", "")
    one = written(tmp_path / "a", ease.export(WEIGHTS), HISTORY.replace("drop", "reject"), rest)
    (reject,) = score(one, {"history": [30, 78, 77]}).rejects
    assert reject.exception == "UnknownId"
    assert "78" in reject.message
    other = written(tmp_path / "b", ease.export(WEIGHTS), HISTORY.replace("drop", "5"), rest)
    scored = score(other, {"history": [30, 78]}, {"history": [30, ITEMS[5]]})
    assert items(scored)[0] == items(scored)[1]


IDS = st.one_of(st.sampled_from([*ITEMS, 77]), st.none(), st.text(max_size=3), st.floats())
EVENTS = st.one_of(
    st.binary(max_size=8),
    st.fixed_dictionaries(
        {},
        optional={
            "history": st.one_of(IDS, st.lists(IDS, max_size=9)),
            "candidates": st.one_of(IDS, st.lists(IDS, max_size=9)),
        },
    ),
)


@settings(deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=12), st.integers(1, 8))
def test_each_event_is_answered_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], k: int
) -> None:
    """Whatever events hold, each is ranked or rejected, and no list is longer than k."""
    root = tmp_path_factory.mktemp("any")
    folder = written(root, ease.export(WEIGHTS), f"{HISTORY}\n  {CANDIDATES}", EASE_YAML)
    for one in items(score(folder, *events, k=k)):
        assert len(set(one)) == len(one) <= k
        assert set(one) <= set(ITEMS)


# -- sequences -----------------------------------------------------------------------------------


def last_item() -> bytes:
    """A graph that scores by what stands last: items [batch, n] and a mask to all scores."""
    table = np.vstack([np.zeros((1, 7)), np.hstack([np.zeros((6, 1)), WEIGHTS])])
    nodes = [
        helper.make_node("Gather", ["table", "sequence"], ["each"]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["scores"], keepdims=0),
    ]
    return ease.model(
        "sum",
        nodes,
        [
            tensor("sequence", TensorProto.INT64, ["batch", "length"]),
            tensor("mask", TensorProto.FLOAT, ["batch", "length"]),
        ],
        [tensor("scores", TensorProto.FLOAT, ["batch", 7])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(np.array([2]), "axis"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )


SEQUENCE_YAML = """
inputs:
  sequence: {ids: history, form: padded, newest: 2, side: SIDE}
  mask: {ids: history, form: mask, newest: 2, side: SIDE}
ranking: {vocabulary: items, scores: scores, seen: history}
"""


@pytest.mark.parametrize("side", ["left", "right"])
def test_sequences_are_padded_and_cut_to_the_newest(tmp_path: Path, side: str) -> None:
    """The newest n reach the model whatever the lengths; what is older still counts as seen."""
    rest = SEQUENCE_YAML.replace("SIDE", side)
    folder = written(tmp_path, last_item(), HISTORY, rest)
    text = folder.joinpath("model.yaml").read_text()
    folder.joinpath("model.yaml").write_text(text.replace("type: int64", "type: int64, first: 1"))
    scored = score(folder, {"history": [30]}, {"history": [60, 50, 30, 40]}, k=6)
    assert items(scored) == [expected([30], {30}, 6), expected([30, 40], {60, 50, 30, 40}, 6)]


# -- what check refuses --------------------------------------------------------------------------

WRONG: Mapping[str, tuple[str, str, str]] = {
    "a vocabulary of another size": (
        "first: 0",
        "first: 1",
        "is 6 wide, and vocabulary 'items' has 7",
    ),
    "another vocabulary": ("sha256: ", "sha256: 0", "differs from items.txt"),
    "no such form": ("multi_hot", "bag", "is not known"),
    "an id as a list": ("list: true", "list: false", "does not fit one id"),
    "a choice that is none": ("unknown: drop", "unknown: 9", "is no index"),
    "no such ids": ("seen: history", "seen: past", "is not declared"),
    "an output that is the ranking's": (
        "ranking:",
        "outputs: {best: {column: b}}\nranking:",
        "belongs to",
    ),
    "no such output": ("scores: scores", "scores: points", "is no output of the model"),
    "a choice of fixed number": ("  k: {form: k}\n", "", "has no entry"),
    "all items of an optional id": ("missing: all", "missing: every", "is no choice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    """A model.yaml that contradicts its model or itself is refused with the place in it."""
    before, after, message = WRONG[name]
    folder = written(tmp_path, ease.export(WEIGHTS), f"{HISTORY}\n  {CANDIDATES}", EASE_YAML)
    file = folder / "model.yaml"
    text = file.read_text().replace("type: int64", "type: int64, first: 0")
    head, _, rest = text.partition("vocabularies")
    assert before in rest
    file.write_text(f"{head}vocabularies{rest.replace(before, after, 1)}")
    with pytest.raises(ConfigInvalid, match=message):
        checked(folder)


def checked(folder: Path) -> None:
    """Do what `headrace check` does with a model."""
    files = load_files(folder)
    mistakes = check_signature(files.spec, OnnxModel(files.model).signature)
    if mistakes:
        raise ConfigInvalid(mistakes)


@pytest.mark.parametrize("content", ["10\n10\n", "10\nten\n", ""])
def test_a_vocabulary_is_a_list_of_different_ids(tmp_path: Path, content: str) -> None:
    """A file with a repetition, with what is no id, or with nothing is refused."""
    rest = EASE_YAML.replace(", candidates: candidates", "")
    folder = written(tmp_path, ease.export(WEIGHTS), HISTORY, rest)
    (folder / "items.txt").write_text(content)
    with pytest.raises(ConfigInvalid, match=r"vocabularies\.items\.file"):
        load_files(folder)


def test_rules_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    """Settings that allow no item that the model knows are a mistake, as is a file of other ids."""
    rest = EASE_YAML.replace(", candidates: candidates", "")
    spec = load_files(written(tmp_path, ease.export(WEIGHTS), HISTORY, rest)).spec
    assert spec.ranking is not None
    (tmp_path / "allow.txt").write_text("77\n")
    with pytest.raises(ConfigInvalid, match="leaves none of the 6 items"):
        read_rules(Ranking(allow=tmp_path / "allow.txt"), spec.ranking.vocabulary)
    (tmp_path / "words.txt").write_text("ten\n")
    with pytest.raises(ConfigInvalid, match=r"ranking\.deny"):
        read_rules(Ranking(deny=tmp_path / "words.txt"), spec.ranking.vocabulary)


# -- from a config -------------------------------------------------------------------------------


def config(model: str, **ranking: Any) -> Config:
    """Give a job's config, in the repository's root."""
    content = {"job": "shop", "model": model, "kafka": {"bootstrap.servers": "127.0.0.1:1"}}
    return parse({**content, "ranking": ranking}, ROOT, {})


@pytest.mark.parametrize("name", ["recommend", "recommend-sequence", "recommend-pairs"])
def test_a_shipped_model_ranks_as_its_config_says(name: str) -> None:
    """What a replica is made of ranks with the settings' k, whatever the model's form."""
    scorer = build_scorer(prepare(config(f"models/{name}", k=3)))
    event = {"user": 1, "history": [5, 7], "candidates": [1, 2, 5, 9, 11]}
    (row,) = scorer.score(batch_of(json.dumps(event).encode())).rows.to_pylist()
    assert len(row["items"]) == 3
    assert not set(row["items"]) & {5, 7}
    assert set(row["items"]) <= ({1, 2, 9, 11} if name == "recommend-pairs" else set(range(1, 241)))


def test_check_says_what_is_ranked() -> None:
    """A model that ranks is told by its catalogue, not by a number of features."""
    assert "the best 3 of 240 items" in list(check._model(config("models/recommend", k=3)))


def test_check_refuses_a_vocabulary_that_does_not_fit(tmp_path: Path) -> None:
    """Ids that are one fewer than the model's columns are found before the start, by their file."""
    rest = EASE_YAML.replace(", candidates: candidates", "")
    folder = written(tmp_path, ease.export(WEIGHTS), HISTORY, rest)
    fewer = "".join(f"{one}\n" for one in ITEMS[:-1])
    (folder / "items.txt").write_text(fewer)
    text = re.sub(
        r"(items.txt.*sha256: )\w+",
        lambda found: found[1] + hashlib.sha256(fewer.encode()).hexdigest(),
        (folder / "model.yaml").read_text(),
    )
    (folder / "model.yaml").write_text(text)
    with pytest.raises(ConfigInvalid, match="is 6 wide, and vocabulary 'items' has 5"):
        list(check._model(config(str(folder.parent))))


def test_rules_for_a_model_that_does_not_rank_are_a_mistake(tmp_path: Path) -> None:
    """A deny list that nothing would heed is refused."""
    with pytest.raises(ConfigInvalid, match="set for a model that does not rank"):
        prepare(config("models/fraud", deny=str(tmp_path / "deny.txt")))
