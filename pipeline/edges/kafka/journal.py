"""Reads the journal topic and keeps the archive's progress."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from pipeline import journal
from pipeline.edges.kafka.clients import consumer_settings, translate, translating
from pipeline.errors import ClusterUnfit, Retriable
from pipeline.ports import JournalRecord
from pipeline.topology import Topic

CALL_SECONDS = 10.0
# A poll waits so long for as many records as it asks for.
POLL_SECONDS = 0.1
# A commit's record follows its chunks, of which a commit has tens.
TAIL_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """The archive's progress in one journal partition, None before its first, and the log there."""

    offset: int | None
    note: str
    low: int
    high: int

    @property
    def lost(self) -> bool:
        """Whether records were removed, or the topic made anew, before they were archived."""
        return self.offset is not None and not self.low <= self.offset <= self.high


class KafkaJournal:
    """A consumer of every journal partition; see `pipeline.ports.JournalReader`."""

    def __init__(
        self, settings: Mapping[str, str], group: str, topic: str, partitions: int
    ) -> None:
        self._topic = topic
        self._group = group
        self._partitions = range(partitions)
        self._consumer = Consumer(consumer_settings(settings, group))

    def _asked(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self._partitions]

    def standing(self) -> dict[int, Standing]:
        """How far each partition is archived. Raises Retriable."""
        with translating(f"reading the progress of group {self._group}"):
            stored = self._consumer.committed(self._asked(), timeout=CALL_SECONDS)
        found = {}
        for item in stored:
            if item.error is not None:
                raise translate(item.error, f"reading the progress of group {self._group}")
            with translating(f"reading {self._topic}/{item.partition}"):
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, item.partition), timeout=CALL_SECONDS
                )
            offset = item.offset if item.offset >= 0 else None
            found[item.partition] = Standing(offset, item.metadata or "", low, high)
        return found

    def start(self) -> Mapping[int, tuple[int, str]]:
        """Assign every partition at its progress, or at the log's start the first time."""
        found = {}
        for number, at in self.standing().items():
            if at.lost:
                raise ClusterUnfit(
                    f"{self._topic}/{number} holds offsets {at.low} to {at.high}, and the archive "
                    f"stands at {at.offset}: retention removed rows before they were in Parquet, "
                    "or the topic was made anew. Give the journal 7 days or more. `headrace "
                    "offsets CONFIG --to` with an ISO 8601 time scores the records since then "
                    "again, and with skip-gap leaves those rows out of Parquet"
                )
            found[number] = (at.low, "") if at.offset is None else (at.offset, at.note)
        with translating(f"reading {self._topic}"):
            self._consumer.assign(
                [TopicPartition(self._topic, number, at) for number, (at, _) in found.items()]
            )
        return found

    def poll(
        self, max_records: int, timeout: float
    ) -> tuple[Sequence[JournalRecord], Mapping[int, int]]:
        """Records, and the ends that were met after the last of theirs."""
        with translating(f"reading {self._topic}"):
            messages: list[Message] = self._consumer.consume(max_records, timeout)
        records = []
        ends: dict[int, int] = {}
        for message in messages:
            number, error = message.partition(), message.error()
            if error is None:
                ends.pop(number, None)
                records.append(
                    JournalRecord(
                        partition=number,
                        offset=message.offset(),
                        timestamp=message.timestamp()[1],
                        key=message.key(),
                        value=message.value(),
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                ends[number] = message.offset()
            elif not error.retriable():
                raise translate(error, f"reading {self._topic}/{number}")
        return records, ends

    def ends(self) -> Mapping[int, int]:
        """Last stable offsets as the broker told with the newest fetch."""
        found = {}
        for partition in self._asked():
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            found[partition.partition] = max(high, 0)
        return found

    def save(self, progress: Mapping[int, tuple[int, str]]) -> None:
        """Commit positions with their notes."""
        offsets = [
            TopicPartition(self._topic, number, offset, metadata=note)
            for number, (offset, note) in progress.items()
        ]
        with translating(f"committing the progress of group {self._group}"):
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        for item in done or ():
            if item.error is not None:
                raise translate(item.error, f"committing the progress of group {self._group}")

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()


def newest_writer(settings: Mapping[str, str], group: str, topic: Topic) -> tuple[int, int]:
    """The newest generation and epoch that the journal knows of, (0, 0) where it is empty.

    They count where offsets are lost: the archive takes no records of an older generation.
    """
    generation = epoch = 0
    with closing(Consumer(consumer_settings(settings, group))) as consumer:
        for partition in topic.all:
            with translating(f"reading {partition}"):
                low, high = consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=CALL_SECONDS
                )
            size = TAIL_RECORDS
            while low < high:
                since = max(low, high - size)
                found = list(_writers(consumer, TopicPartition(*partition, since)))
                for one in found:
                    generation, epoch = max(generation, one.layout), max(epoch, one.epoch)
                if found or since == low:
                    break
                size *= 10
    return generation, epoch


def _writers(
    consumer: Consumer, since: TopicPartition
) -> Iterator[journal.CommitRecord | journal.RollRecord]:
    """The commit and roll records of one partition from `since` to its end."""
    name = f"{since.topic}/{since.partition}"
    with translating(f"reading {name}"):
        consumer.assign([since])
    heard = time.monotonic()
    while time.monotonic() - heard < CALL_SECONDS:
        with translating(f"reading {name}"):
            messages: list[Message] = consumer.consume(TAIL_RECORDS, POLL_SECONDS)
        if messages:
            heard = time.monotonic()
        for message in messages:
            error = message.error()
            if error is None:
                kind = journal.read_key(message.key()).kind
                if kind == journal.COMMIT:
                    yield journal.read_commit(message.value())
                elif kind == journal.ROLL:
                    yield journal.read_roll(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                return
            elif not error.retriable():
                raise translate(error, f"reading {name}")
    raise Retriable(f"reading {name}: the broker gave nothing for {CALL_SECONDS:.0f} s")
