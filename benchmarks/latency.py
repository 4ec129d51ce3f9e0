"""From an event's produce to its committed prediction in a reader's hands, at an even rate."""

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.contender import Contender, Run
from benchmarks.outcome import WrongOutput, decode, reader
from benchmarks.trial import (
    START_SECONDS,
    ContenderFailed,
    Stage,
    delete_topics,
    failure,
    prepared,
    running,
)
from benchmarks.workload import PARTITIONS
from jobs.local_broker import create_topics

# Not measured: the broker's JVM compiles the contender's way of using it, such as transactions,
# on half a processor for as long.
SETTLING_SECONDS = 30.0
# What one round of the reader may add to a latency.
READ_SECONDS = 0.001
READ_RECORDS = 2_000
WARM_UP_SECONDS = 0.5
LAST_SECONDS = 30.0
# A broker's JVM compiles the way of small requests only once they have been many: until then they
# queue, and whoever is measured first pays for it.
BROKER_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds, over all events after the first seconds, at `rate` events a second."""

    rate: float
    p50: float
    p99: float


@contextmanager
def following(bootstrap: str, topic: str) -> Iterator[Consumer]:
    """A reader of the whole topic that has what is committed as soon as the broker has it."""
    # A fetch at the end answers at the latest after this, whatever the broker noticed.
    with closing(reader(bootstrap, **{"fetch.wait.max.ms": 10})) as consumer:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        yield consumer


def warm_broker(stage: Stage, rate: float) -> None:
    """Let events of nobody's go through the broker one by one, as those that will be measured."""
    topic = f"bench-{uuid.uuid4().hex[:8]}.warm"
    create_topics(stage.bootstrap, {topic: PARTITIONS})
    count = int(rate * BROKER_SECONDS)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            following(stage.bootstrap, topic) as consumer,
            _steady(stage, topic, 0, count, rate, Path(folder) / "times.npy") as producing,
        ):
            while producing.poll() is None:
                consumer.consume(READ_RECORDS, READ_SECONDS)
    finally:
        delete_topics(stage.bootstrap, [topic])


def measure_latency(stage: Stage, contender: Contender, rate: float, seconds: float) -> Latency:
    """Run a contender beside a steady producer. Raises ContenderFailed and WrongOutput."""
    topic = f"bench-{uuid.uuid4().hex[:8]}.steady"
    create_topics(stage.bootstrap, {topic: PARTITIONS})
    try:
        with (
            prepared(stage, contender, None, topic) as run,
            running(contender, run) as process,
            following(stage.bootstrap, run.predictions) as consumer,
        ):
            first = _warm_up(stage, contender, run, process, consumer)
            count = int(rate * (seconds + SETTLING_SECONDS))
            sent, seen = _observe(stage, run, consumer, first, count, rate)
    finally:
        delete_topics(stage.bootstrap, [topic])
    kept = int(rate * SETTLING_SECONDS)
    missing = int(np.count_nonzero(seen == 0))
    if missing:
        raise WrongOutput(f"{contender.name}: {missing} of {count} predictions did not come")
    p50, p99 = np.percentile((seen - sent)[kept:] * 1000, [50, 99])
    return Latency(rate, float(p50), float(p99))


def _warm_up(
    stage: Stage,
    contender: Contender,
    run: Run,
    process: subprocess.Popen[bytes],
    consumer: Consumer,
) -> int:
    """Send a few events until predictions of every partition come; returns the next id."""
    producer = Producer({"bootstrap.servers": stage.bootstrap})
    heard: set[int | None] = set()
    sent = 0
    deadline = time.monotonic() + START_SECONDS
    while len(heard) < PARTITIONS:
        if process.poll() is not None or time.monotonic() > deadline:
            raise failure(contender, run, "did not score the first events")
        for key, value, partition in stage.task.events(PARTITIONS, sent):
            producer.produce(run.events, value, key, partition)
        sent += PARTITIONS
        producer.flush(LAST_SECONDS)
        for message in consumer.consume(READ_RECORDS, WARM_UP_SECONDS):
            if message.error() is not None:
                raise KafkaException(message.error())
            heard.add(message.partition())
    return sent


def _observe(
    stage: Stage, run: Run, consumer: Consumer, first: int, count: int, rate: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """When each event was sent and when its prediction was read, [count], 0 where it was not."""
    file = run.scratch / "times.npy"
    read: list[tuple[float, list[bytes | None]]] = []
    # Predictions of warm-up events may still come; they are left out by their ids.
    with _steady(stage, run.events, first, count, rate, file) as producing:
        expected, found = count, 0
        deadline = time.monotonic() + count / rate + LAST_SECONDS
        while found < expected and time.monotonic() < deadline:
            messages = consumer.consume(READ_RECORDS, READ_SECONDS)
            if messages:
                now = time.time()
                values = [message.value() for message in messages if message.error() is None]
                read.append((now, values))
                found += sum(_id(value) >= first for value in values)
        if producing.wait(LAST_SECONDS) != 0:
            raise ContenderFailed(f"the steady producer failed at {rate:,.0f} events/s")
    seen = np.zeros(count)
    for at, values in read:
        for value in values:
            number = _id(value) - first
            if number >= 0 and seen[number] == 0:
                seen[number] = at
    return np.load(file), seen


def _steady(
    stage: Stage, topic: str, first: int, count: int, rate: float, times: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.steady", "--bootstrap", stage.bootstrap]
    command += ["--task", stage.task.name, "--topic", topic]
    command += ["--first", str(first), "--count", str(count)]
    command += ["--rate", str(rate), "--times", str(times)]
    return subprocess.Popen(command)


def _id(value: bytes | None) -> int:
    return decode(value or b"").id
