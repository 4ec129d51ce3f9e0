"""Reads the dead-letter topic up to a given end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, TopicPartition

from pipeline.batch import Headers, Partition
from pipeline.edges.kafka.clients import consumer_settings, translate, translating

CALL_SECONDS = 10.0
POLL_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter and where it lies; `next` is the offset after it."""

    partition: Partition
    next: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class KafkaLetters:
    """A consumer of one topic, of stable records only. Owned by one thread."""

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer({**consumer_settings(settings, group), "fetch.wait.max.ms": 50})

    def starts(self, partitions: int) -> dict[Partition, int]:
        """Where the log of each partition begins."""
        found = {}
        for number in range(partitions):
            with translating(f"reading {self._topic}/{number}"):
                low, _ = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=CALL_SECONDS
                )
            found[Partition(self._topic, number)] = low
        return found

    def read(
        self, positions: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> Iterator[list[Letter]]:
        """Letters from `positions` up to `ends`, the last stable offsets, some at a time.

        The end is fixed because a replay may add letters while they are read.
        Raises ClusterUnfit where a position is not in the log any more, Retriable.
        """
        left = {partition for partition, at in positions.items() if at < ends[partition]}
        with translating(f"reading {self._topic}"):
            self._consumer.assign([TopicPartition(p.topic, p.number, positions[p]) for p in left])
        while left:
            with translating(f"reading {self._topic}"):
                messages = self._consumer.consume(POLL_RECORDS, 0.2)
            letters = []
            for message in messages:
                partition = Partition(self._topic, message.partition())
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                        left.discard(partition)
                    elif not error.retriable():
                        raise translate(error, f"reading {partition}")
                    continue
                after = message.offset() + 1
                if after >= ends[partition]:
                    left.discard(partition)
                if after <= ends[partition]:
                    letters.append(
                        Letter(partition, after, message.key(), message.value(), message.headers())
                    )
            if letters:
                yield letters

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()
