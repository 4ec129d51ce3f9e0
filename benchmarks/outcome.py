"""What a contender has written: read back, and compared with what it should be."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from benchmarks.workload import PARTITIONS

READ_SECONDS = 120.0
TOLERANCE = 1e-5
FETCHED_AT_ONCE = 10_000
# The steady part of a run: what comes before it is starting, what comes after it is draining.
STEADY = (0.15, 0.85)


class WrongOutput(RuntimeError):
    """A contender's output is not what it should be, so that its speed means nothing."""


class _Prediction(msgspec.Struct):
    """One score, or those of a list."""

    id: int
    score: float | None = None
    scores: list[float] = []

    @property
    def number(self) -> float:
        """What is compared; 0 for an empty list."""
        if self.score is not None:
            return self.score
        return sum(self.scores) / max(len(self.scores), 1)


decode = msgspec.json.Decoder(_Prediction).decode


@dataclass(frozen=True, slots=True)
class Predictions:
    """Committed predictions [n] in the order in which they were appended.

    `times` are seconds since the epoch by the broker's clock, to a millisecond.
    """

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]

    def steady(self) -> tuple[float, float, int]:
        """Start and end of the steady part, and how many rows lie between them."""
        first, last = (int(share * (len(self.times) - 1)) for share in STEADY)
        return float(self.times[first]), float(self.times[last]), last - first


def reader(bootstrap: str, **settings: object) -> Consumer:
    """A consumer that sees what is committed, and commits nothing itself."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "benchmark-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 10,
            **settings,
        }
    )


def _committed(bootstrap: str, topic: str) -> Iterator[Message]:
    """All committed records of a topic; raises KafkaException, and TimeoutError after 120 s."""
    deadline = time.monotonic() + READ_SECONDS
    with closing(reader(bootstrap, **{"enable.partition.eof": True})) as consumer:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        ended: set[int | None] = set()
        while len(ended) < PARTITIONS:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} could not be read within {READ_SECONDS:.0f} s")
            for message in consumer.consume(FETCHED_AT_ONCE, 0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
                    ended.add(message.partition())
                else:
                    raise KafkaException(error)


def read_predictions(bootstrap: str, topic: str) -> Predictions:
    """Read a topic of predictions from its start to its end."""
    found = []
    for message in _committed(bootstrap, topic):
        prediction = decode(message.value() or b"")
        found.append((prediction.id, prediction.number, message.timestamp()[1] / 1000))
    columns = np.array(found, np.float64).reshape(-1, 3)
    columns = columns[np.argsort(columns[:, 2], kind="stable")]
    return Predictions(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2])


def check(predictions: Predictions, count: int, reference: npt.NDArray[np.float32]) -> None:
    """Raise WrongOutput unless each of `count` events has one prediction, and the right one."""
    _check_ids(predictions.ids, count, "predictions")
    away = np.abs(predictions.scores - reference[predictions.ids % len(reference)]).max()
    if away > TOLERANCE:
        raise WrongOutput(f"a score is {away:.2g} away from the reference, allowed: {TOLERANCE}")


def check_parquet(parquet: Path, count: int) -> None:
    """Raise WrongOutput unless a folder's Parquet files hold each of `count` events once."""
    ids = [pq.read_table(file, columns=["id"])["id"].to_numpy() for file in _visible(parquet)]
    _check_ids(np.concatenate(ids) if ids else np.empty(0, np.int64), count, "Parquet rows")


def _visible(folder: Path) -> list[Path]:
    """The files that a reader of a folder takes: all but what is hidden or unfinished.

    As Hive and Spark have it, names that begin with a dot or an underscore are; a file's suffix
    plays no part, because Flink's SQL gives none.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    )


def _check_ids(ids: npt.NDArray[np.int64], count: int, what: str) -> None:
    distinct = len(np.unique(ids))
    if len(ids) != count or distinct != count:
        raise WrongOutput(f"{len(ids)} {what} of {distinct} events, expected {count} of each")
