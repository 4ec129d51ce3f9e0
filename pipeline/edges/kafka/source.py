"""Reads the input topic."""

from collections.abc import Mapping

import numpy as np
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, Message, TopicPartition

from pipeline.batch import Partition
from pipeline.edges.kafka.clients import consumer_settings, translate, translating
from pipeline.errors import ClusterUnfit
from pipeline.ports import Polled


class KafkaSource:
    """A consumer with explicit assignment; see `pipeline.ports.Source`."""

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(consumer_settings(settings, group))

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Start reading each partition at its position."""
        with translating(f"reading {self._topic}"):
            self._consumer.assign(
                [TopicPartition(p.topic, p.number, offset) for p, offset in positions.items()]
            )

    def poll(self, max_records: int, timeout: float) -> Polled:
        """At most `max_records`, within `timeout` seconds."""
        with translating(f"reading {self._topic}"):
            messages = self._consumer.consume(max_records, timeout)
        ends: dict[int, int] = {}
        if any(map(Message.error, messages)):
            messages = self._without_events(messages, ends)
        count = len(messages)
        headers = list(map(Message.headers, messages))
        stamps = [stamp for _, stamp in map(Message.timestamp, messages)]
        keys = list(map(Message.key, messages))
        return Polled(
            partitions=np.fromiter(map(Message.partition, messages), np.int32, count),
            offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
            timestamps=np.array(stamps, np.int64),
            keys=keys,
            values=list(map(Message.value, messages)),
            headers=headers if any(headers) else None,
            ends=ends,
            nbytes=sum(map(len, messages)) + sum(map(len, filter(None, keys))),
        )

    def _without_events(self, messages: list[Message], ends: dict[int, int]) -> list[Message]:
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                ends[message.partition()] = message.offset()
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
                at = "" if message.offset() == OFFSET_INVALID else f" {message.offset()}"
                raise ClusterUnfit(
                    f"{self._topic}/{message.partition()}: the committed offset{at} is not in the "
                    f"log any more ({error.str()}): retention removed records before they were "
                    "scored. Give the topic a longer retention.ms, and start the job under another "
                    "name to go on from what is left"
                )
            elif not error.retriable():
                raise translate(error, f"reading {self._topic}/{message.partition()}")
        return records

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()
