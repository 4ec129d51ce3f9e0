"""The demo's recommendation workload: people who come back, and what they then really looked at.

A quarter of what each person looked at is held out. Each of those moments becomes an event that
says what the person had looked at before; what follows is joined afterwards.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs import interactions, recommend_model, train_recommend
from jobs.demo.workload import ROOT, Broken, Event, Listing, Verdict, Workload
from jobs.interactions import Flags, Interactions
from jobs.ranking_metrics import Quality, judge, most_popular

K = 10
SEED = 0
BATCH_ROWS = 500
PEOPLE = 3
SHOWN_TITLES = 5
# nDCG@10 of recommenders-team/recommenders: MovieLens 100K, 75/25 by user, k = 10.
PUBLISHED = (
    ("BiVAE", 0.469),
    ("BPR", 0.445),
    ("LightGCN", 0.416),
    ("SAR", 0.394),
    ("NCF", 0.369),
    ("ALS", 0.033),
)
COLUMNS = ("model", "nDCG@10", "precision", "recall", "MAP", "coverage", "novelty")


@dataclass(frozen=True, slots=True)
class Held:
    """The data, and which part of it the model has been trained on."""

    data: Interactions
    training: Flags

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """The moments that were held out, then each person once with all that is known."""
        numbers = itertools.count()
        every = itertools.chain(self._moments(), self.people())
        numbered = (event(number, *one) for number, one in zip(numbers, every, strict=False))
        return itertools.islice(numbered, limit)

    def _moments(self) -> Iterator[tuple[int, list[int]]]:
        """Who comes back, in the order of time, and what is known of them until then."""
        data = self.data
        histories: dict[int, list[int]] = defaultdict(list)
        moments = zip(data.users.tolist(), data.items.tolist(), self.training.tolist(), strict=True)
        for user, item, known in moments:
            if known:
                histories[user].append(item)
            elif histories[user]:
                yield user, histories[user]

    def people(self) -> Iterator[tuple[int, list[int]]]:
        """Each person with all that is known."""
        for user in range(1, self.data.shape[0] + 1):
            yield user, self.data.items[self.training & (self.data.users == user)].tolist()


def event(number: int, user: int, history: list[int]) -> Event:
    """The event that asks what to recommend to a person, keyed by its number."""
    value = msgspec.json.encode({"id": number, "user": user, "history": history})
    return str(number).encode(), value


def workload(data: Interactions, seed: int = SEED) -> Workload:
    """Train EASE on the part that is known, and put the workload together."""
    held = Held(data, interactions.split(data, seed))
    trained = train_recommend.train_ease(data, held.training)
    model = recommend_model.write(
        trained, interactions.cache() / "models" / f"seed-{seed}", data.name
    )
    users, items = data.shape
    return Workload(
        name="recommend",
        title="recommendations",
        story=(
            f"{users:,} people come back, again and again, to a shelf of {items:,} films "
            f"({data.name}). Each event says what one of them has looked at so far; replicas on "
            f"Ray rank what they have not seen with an ONNX model (EASE, trained just now on three "
            f"quarters of it), and the best {K} go to Kafka and Parquet. What they really looked "
            "at is joined afterwards."
        ),
        config=ROOT / "configs" / "recommend.yaml",
        # Half of the cards, and each takes longer: smaller batches show how fast they go.
        settings={"model": str(model), "batching": {"max_batch_size": BATCH_ROWS}},
        size=sum(1 for _ in held.events()),
        events=held.events,
        broken=lambda: broken(held),
        judge=lambda rows: verdict(rows, held),
        columns=("user", "items", "scores", "model_version"),
        highest="scores[1]",
    )


def broken(held: Held) -> tuple[Broken, ...]:
    """Six events, each wrong in its own way, made from the first one."""
    ((_, value),) = held.events(1)
    good: dict[str, Any] = msgspec.json.decode(value)
    stranger = held.data.shape[1] + 1

    def other(history: Any) -> bytes:
        return msgspec.json.encode({**good, "history": history})

    wrong: dict[str, bytes | None] = {
        "JSON cut off in the middle": value[: len(value) // 2],
        "no history at all": msgspec.json.encode({k: good[k] for k in ("id", "user")}),
        "a history of texts": other(["Star Wars"]),
        "a null in the history": other([good["history"][0], None]),
        "films that the model does not know": other([stranger, stranger + 1]),
        "no value at all (a tombstone)": None,
    }
    return tuple(
        Broken(f"broken-{number}".encode(), what, made)
        for number, (what, made) in enumerate(wrong.items(), 1)
    )


def lists_of(rows: pa.Table, users: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The last list of each user, `[users, K]` of item columns with -1 at its end, and who has one.

    `rows` are a job's Parquet rows with `id`, `user` and `items`.
    """
    last = rows.sort_by("id").select(["user", "items"]).to_pylist()
    lists = np.full((users, K), -1, np.int64)
    answered = np.zeros(users, np.bool_)
    for row in last:
        lists[row["user"] - 1] = -1
        lists[row["user"] - 1, : len(row["items"])] = np.array(row["items"], np.int64) - 1
        answered[row["user"] - 1] = True
    return lists, answered


def verdict(rows: pa.Table, held: Held) -> Verdict | None:
    """Join what was held out and measure; None where nobody was answered."""
    data = held.data
    users, _ = data.shape
    lists, answered = lists_of(rows, users)
    training, relevant = data.matrix(held.training), data.matrix(~held.training) > 0
    judged = answered & relevant.any(axis=1)
    if not judged.any():
        return None
    ours = judge(lists[judged], training, relevant[judged])
    popular = judge(most_popular(training, K)[judged], training, relevant[judged])
    whole = rows.num_rows == sum(1 for _ in held.events())
    published = PUBLISHED if whole and data.name == interactions.MOVIELENS else ()
    remark = "Published: recommenders-team/recommenders, same data and protocol, other splits."
    if not whole:
        remark = (
            f"These are {rows.num_rows:,} of all events, so that histories are shorter than in "
            "the published protocol: leave --records out to compare."
        )
    elif not published:
        remark = f"The data is {data.name}: nothing is published to compare with."
    return Verdict(
        title=f"How good are the lists? {int(judged.sum()):,} people, {data.name}",
        columns=COLUMNS,
        rows=(
            ("this run, from its Parquet", *_cells(ours)),
            *((name, f"{ndcg:.3f}", *["-"] * 5) for name, ndcg in published),
            ("the most popular, for everybody", *_cells(popular)),
        ),
        remarks=(remark,),
        draw=lambda axes: _draw(axes, ours, published, popular),
        listings=tuple(_people(lists, judged, held)),
    )


def _cells(quality: Quality) -> tuple[str, ...]:
    return (
        f"{quality.ndcg:.3f}",
        f"{quality.precision:.3f}",
        f"{quality.recall:.3f}",
        f"{quality.mean_average_precision:.3f}",
        f"{quality.coverage:.3f}",
        f"{quality.novelty:.2f}",
    )


def _people(
    lists: npt.NDArray[np.int64], judged: npt.NDArray[np.bool_], held: Held
) -> Iterator[Listing]:
    """Three people, evenly from the judged ones: what they saw last, what they are recommended."""
    data = held.data
    chosen = np.flatnonzero(judged)
    for row in chosen[np.linspace(0, len(chosen) - 1, PEOPLE + 2).astype(int)[1:-1]].tolist():
        own = data.users == row + 1
        seen = data.items[own & held.training][-SHOWN_TITLES:][::-1]
        later = set((data.items[own & ~held.training] - 1).tolist())
        offered = [column for column in lists[row].tolist() if column >= 0][:SHOWN_TITLES]
        lefts = [data.titles[item - 1] for item in seen.tolist()]
        rights = [data.titles[column] + (" ✓" if column in later else "") for column in offered]
        yield Listing(
            title=f"Person {row + 1} (✓: looked at it, and the model did not know)",
            columns=("looked at lately", "is recommended"),
            rows=tuple(itertools.zip_longest(lefts, rights, fillvalue="")),
        )


def _draw(
    axes: Any, ours: Quality, published: tuple[tuple[str, float], ...], popular: Quality
) -> None:
    """One bar for each model, this run's in colour."""
    bars = [("this run", ours.ndcg), *published, ("most popular", popular.ndcg)]
    names, values = zip(*reversed(bars), strict=True)
    colours = ["#2563eb" if name == "this run" else "#cbd5e1" for name in names]
    axes.bar_label(axes.barh(names, values, color=colours), fmt="%.3f", padding=4)
    axes.set(xlim=(0, max(values) * 1.15), xlabel="nDCG@10")
    axes.grid(visible=False, axis="y")
    axes.set_title(f"What was recommended was looked at: nDCG@10 {ours.ndcg:.3f}")
