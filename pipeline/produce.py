"""`headrace produce`: records from a file or a generator into a topic."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from pipeline.errors import ClusterUnfit

# Paced records go out a hundred times a second, so that the stream is even.
TICK_SECONDS = 0.01
UNPACED_RECORDS = 4096
PROGRESS_SECONDS = 0.2
# Longer than librdkafka keeps trying to deliver a record.
FLUSH_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What was produced; `problem` is the first delivery error, empty without one."""

    sent: int
    delivered: int
    failed: int
    seconds: float
    problem: str

    def __str__(self) -> str:
        rate = self.delivered / self.seconds if self.seconds > 0 else 0.0
        text = f"{self.delivered:,} records delivered in {self.seconds:.1f} s, {rate:,.0f}/s"
        return f"{text}; {self.failed:,} failed: {self.problem}" if self.failed else text


def produce(
    records: Iterable[tuple[bytes | None, bytes]],
    settings: Mapping[str, str],
    topic: str,
    rate: float | None = None,
    progress: Callable[[int, float], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Summary:
    """Send records, given as key and value, and wait until each is acknowledged.

    `rate` is in records per second, None is as fast as it goes. `progress` is told how many were
    sent and the seconds since the start, a few times a second; `stopping` is asked as often as
    records are sent, and what was sent until then is still delivered.
    Raises ClusterUnfit where the topic is missing or refuses, Retriable without a broker.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin, require
    from pipeline.edges.kafka.producer import KafkaProducer

    found = require(KafkaAdmin(settings).topics([topic]), topic, "topic")
    producer = KafkaProducer(settings, topic, found.limit)
    begun = time.monotonic()
    shown = begun
    for chunk in _paced(records, rate, begun, producer.wait):
        producer.send(chunk)
        now = time.monotonic()
        if progress is not None and now - shown >= PROGRESS_SECONDS:
            shown = now
            progress(producer.sent, now - begun)
        if stopping():
            break
    left = producer.finish(FLUSH_SECONDS)
    failed = producer.failed + left
    problem = producer.problem or ("not acknowledged in time" if left else "")
    seconds = time.monotonic() - begun
    if progress is not None:
        progress(producer.sent, seconds)
    return Summary(producer.sent, producer.sent - failed, failed, seconds, problem)


def _paced(
    records: Iterable[tuple[bytes | None, bytes]],
    rate: float | None,
    begun: float,
    wait: Callable[[float], None],
) -> Iterator[list[tuple[bytes | None, bytes]]]:
    """Chunks of records, each when it is due by the rate since `begun`."""
    rest = iter(records)
    count = 0
    while True:
        size = UNPACED_RECORDS
        if rate is not None:
            due = int((time.monotonic() - begun) * rate) + 1 - count
            if due <= 0:
                wait(TICK_SECONDS)
                # A slow rate has seconds between two records, in which someone may want to stop.
                yield []
                continue
            size = min(due, UNPACED_RECORDS)
        chunk = list(islice(rest, size))
        if not chunk:
            return
        count += len(chunk)
        yield chunk


def refuse_failures(summary: Summary, topic: str) -> None:
    """Raise ClusterUnfit where a record was not delivered."""
    if summary.failed:
        raise ClusterUnfit(
            f"topic {topic}: {summary.failed:,} of {summary.sent:,} records were not delivered "
            f"({summary.problem}). Look at the broker, the permissions and the topic's "
            "max.message.bytes"
        )
