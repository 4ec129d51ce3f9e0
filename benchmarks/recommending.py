"""What every contender recommends: the best ten of 1,682 items by EASE, for histories as JSON."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.model_folder import reference_session, write_version
from benchmarks.task import Task
from benchmarks.workload import DISTINCT, KEYS, PARTITIONS

# As many as MovieLens 100K has; speed does not depend on what the weights are.
ITEMS = 1_682
K = 10
SHORTEST, LONGEST = 5, 60


def histories() -> list[npt.NDArray[np.int64]]:
    """The item ids that event n takes from place n mod `DISTINCT`."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(SHORTEST, LONGEST, DISTINCT, endpoint=True)
    return [generator.permutation(ITEMS)[:length] + 1 for length in lengths]


def events(count: int, first: int = 0) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, value (about 180 bytes) and partition of events `first` to `first + count - 1`."""
    texts = [b"[%s]" % b",".join(b"%d" % one for one in row) for row in histories()]
    for number in range(first, first + count):
        value = b'{"id":%d,"history":%s}' % (number, texts[number % DISTINCT])
        yield b"person-%d" % (number % KEYS), value, number % PARTITIONS


def write_model(folder: Path) -> Path:
    """Write EASE with made-up weights as `folder/ease/1`; returns `folder/ease`."""
    from jobs import ease

    weights = np.random.default_rng(0).normal(0, 0.1, (ITEMS, ITEMS))
    np.fill_diagonal(weights, 0)
    return write_ranker(folder, "ease", ease.export(weights), "form: multi_hot")


def write_ranker(folder: Path, name: str, graph: bytes, form: str, first: int = 0) -> Path:
    """Write a graph that ranks by `history`, which it takes in this form, into `folder/name`.

    Item 1 has the index `first`. Returns `folder/name`.
    """
    items = "".join(f"{number}\n" for number in range(1, ITEMS + 1)).encode()
    text = (
        f"vocabularies:\n  items: {{file: items.txt, type: int64, first: {first}, "
        f"sha256: {hashlib.sha256(items).hexdigest()}}}\n"
        "ids:\n  history: {vocabulary: items, list: true}\n"
        f"inputs:\n  history: {{ids: history, {form}}}\n"
        "  blocked: {form: blocked}\n  k: {form: k}\n"
        "ranking: {vocabulary: items, scores: scores, indices: best, seen: history}\n"
    )
    model = write_version(folder, name, graph, text)
    (model / "1" / "items.txt").write_bytes(items)
    return model


def reference(model: Path) -> npt.NDArray[np.float32]:
    """The mean score of each of the `DISTINCT` lists, float32 [DISTINCT]."""
    seen = np.zeros((DISTINCT, ITEMS), np.bool_)
    for line, history in zip(seen, histories(), strict=True):
        line[history - 1] = True
    feeds = {"history": seen.astype(np.float32), "blocked": seen, "k": np.array([K])}
    scores = reference_session(model).run(["scores"], feeds)[0]
    return np.asarray(scores.mean(axis=1), np.float32)


RECOMMENDING = Task(
    "recommend",
    200_000,
    events,
    write_model,
    reference,
    "benchmarks.bare_ranking_loop",
    "-recommend",
)
