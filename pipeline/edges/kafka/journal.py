"""Reads the journal topic and keeps the archive's progress."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from pipeline.edges.kafka.clients import consumer_settings, translate, translating
from pipeline.errors import ClusterUnfit
from pipeline.ports import JournalRecord

CALL_SECONDS = 10.0


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

    def start(self) -> Mapping[int, tuple[int, str]]:
        """Assign every partition at its progress, or at the log's start the first time."""
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
            offset, note = (item.offset, item.metadata or "") if item.offset >= 0 else (low, "")
            if not low <= offset <= high:
                raise ClusterUnfit(
                    f"{self._topic}/{item.partition} holds offsets {low} to {high}, and the "
                    f"archive stands at {offset}: retention removed rows before they were in "
                    "Parquet. The predictions topic still has what its own retention keeps; give "
                    "the journal 7 days or more, and start the job under another name"
                )
            found[item.partition] = (offset, note)
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
