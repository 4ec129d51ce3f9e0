"""What came out of the run: counted, timed, and refused where it is not what went in.

The rows are the Parquet files', the arrivals are those of a consumer of the predictions topic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.demo.readers import Letter
from jobs.demo.workload import Broken, DemoFailed

PERCENTILES = (50, 95, 99)
# While the first batches are scored the replicas are not all at work yet.
WARM_UP = 0.1
FEWEST_BATCHES = 10


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at `PERCENTILES` between two moments of the same records."""

    what: str
    milliseconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """Records produced and not scored yet, at seconds since the first one; both [2 N]."""

    seconds: NDArray[np.float64]
    records: NDArray[np.int64]
    steady_from: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the summary tells. `throughput` is in records per second, None if not measured."""

    records: int
    throughput: float | None
    latencies: tuple[Latency, ...]
    lag: Lag
    letters: tuple[tuple[Broken, Letter], ...]


def measure(
    rows: pa.Table,
    arrivals: Sequence[tuple[bytes | None, float]],
    letters: Sequence[Letter],
    broken: Sequence[Broken],
    *,
    records: int,
    steady_since: float,
) -> Figures:
    """Count and time what came out; `steady_since` is in seconds since the epoch.

    Raises DemoFailed with every count that is wrong.
    """
    found = {letter.key: letter for letter in letters}
    _refuse_wrong_counts(rows, arrivals, letters, broken, records)
    event = _seconds(rows["event_time"])
    scored = _seconds(rows["scored_at"])
    seen = dict(arrivals)
    arrived = np.array([seen[key] for key in rows["key"].to_pylist()])
    steady = event >= steady_since
    return Figures(
        records=records,
        throughput=throughput(scored[~steady]),
        latencies=(
            _latency("until scored", scored[steady] - event[steady]),
            _latency("until read from the predictions topic", arrived[steady] - event[steady]),
        ),
        lag=lag(event, scored, steady_since),
        letters=tuple((one, found[one.key]) for one in broken),
    )


def throughput(scored: NDArray[np.float64]) -> float | None:
    """Records per second of a backlog, from its batches' times in seconds, without its start.

    None where there are fewer than `FEWEST_BATCHES`, which would say nothing.
    """
    times = np.sort(scored)
    if len(np.unique(times)) < FEWEST_BATCHES:
        return None
    start = times[int(len(times) * WARM_UP)]
    rest = times[times > start]
    return len(rest) / float(rest[-1] - start)


def lag(event: NDArray[np.float64], scored: NDArray[np.float64], steady_since: float) -> Lag:
    """How many records waited at each moment; times in seconds since the epoch, [N] each."""
    times = np.concatenate([event, scored])
    steps = np.concatenate([np.ones(len(event), np.int64), np.full(len(scored), -1, np.int64)])
    order = np.argsort(times, kind="stable")
    first = float(times[order[0]])
    return Lag(times[order] - first, steps[order].cumsum(), steady_since - first)


def _refuse_wrong_counts(
    rows: pa.Table,
    arrivals: Sequence[tuple[bytes | None, float]],
    letters: Sequence[Letter],
    broken: Sequence[Broken],
    records: int,
) -> None:
    places = rows.select(["partition", "offset"]).group_by(["partition", "offset"]).aggregate([])
    keys = {key for key, _ in arrivals}
    wrong = [
        f"{what}: {count:,}, expected {wanted:,}"
        for what, count, wanted in (
            ("rows in Parquet", rows.num_rows, records),
            ("different records in Parquet", places.num_rows, records),
            ("predictions in Kafka", len(arrivals), records),
            ("different predictions in Kafka", len(keys), records),
            ("dead letters", len(letters), len(broken)),
        )
        if count != wanted
    ]
    missing = {one.key for one in broken} - {letter.key for letter in letters}
    wrong += [
        f"broken event {one.what!r} is no dead letter" for one in broken if one.key in missing
    ]
    wrong += ["Parquet and Kafka hold different records"] * (keys != set(rows["key"].to_pylist()))
    if wrong:
        raise DemoFailed("what came out is not what went in:\n  " + "\n  ".join(wrong))


def _seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.int64()).to_numpy() / 1e6)


def _latency(what: str, seconds: NDArray[np.float64]) -> Latency:
    return Latency(what, tuple(float(v) * 1000 for v in np.percentile(seconds, PERCENTILES)))
