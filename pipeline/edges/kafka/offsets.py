"""The group's committed offsets, with our metadata: read stably, planned, committed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline import layout as layouts
from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.clients import (
    asked_again,
    consumer_settings,
    translate,
    translating,
)
from pipeline.errors import OffsetsHeld

STABLE_READ_SECONDS = 5.0
# What a broker answers while it finds, makes or loads what holds a group.
NO_COORDINATOR_YET = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
AGAIN_SECONDS = 0.2


class GroupOffsets:
    """Reads and commits the group's offsets with our metadata."""

    def __init__(self, settings: Mapping[str, str], group: str) -> None:
        self.group = group
        self._consumer = Consumer(consumer_settings(settings, group))

    def claim_positions(self, assignment: Assignment, *, metadata_kept: bool) -> layouts.Plan:
        """Stable read, the rules of `pipeline.layout`, and the log's start for new partitions."""
        found = self.read(assignment.partitions)
        if not metadata_kept:
            unknown = layouts.encode(assignment.layout, 0, 0)
            found = {
                partition: item if item.metadata else layouts.Stored(item.offset, unknown)
                for partition, item in found.items()
            }
        plan = layouts.plan_claim(assignment, found, self.group)
        if metadata_kept:
            layouts.refuse_other_run(assignment, found, self.group)
        plan.positions.update(self.starts(plan.fresh))
        return plan

    def starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where the log of each partition begins."""
        found = {}
        for partition in partitions:
            with translating(f"finding the start of {partition}"):
                low, _ = self._consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=STABLE_READ_SECONDS
                )
            found[partition] = low
        return found

    def read(self, partitions: Sequence[Partition]) -> dict[Partition, layouts.Stored]:
        """The committed offsets; raises OffsetsHeld while a transaction on them stays open."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            found = committed(self._consumer, asked, STABLE_READ_SECONDS)
        except KafkaException as problem:
            error = problem.args[0]
            if error.code() != KafkaError._TIMED_OUT:  # noqa: SLF001
                raise translate(error, f"reading offsets of group {self.group}") from problem
            raise OffsetsHeld(
                f"the offsets of group {self.group} stay unstable for {STABLE_READ_SECONDS:.0f} s: "
                "a transaction that is none of this job's holds them open, or the broker does not "
                "answer"
            ) from problem
        return stored(found)

    def group_metadata(self) -> Any:
        """What a transaction needs to commit offsets of this group."""
        return self._consumer.consumer_group_metadata()

    def commit(self, offsets: list[TopicPartition]) -> None:
        """Commit without a transaction; returns once the broker has taken them."""
        with translating(f"group {self.group}: committing offsets"):
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        for item in done or ():
            if item.error is not None:
                raise translate(item.error, f"group {self.group}: committing offsets")

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()


def committed(
    consumer: Consumer, asked: list[TopicPartition], seconds: float
) -> list[TopicPartition]:
    """The group's offsets of these partitions, asked again while the group has no coordinator.

    Raises KafkaException.
    """
    if not asked:
        return []
    return asked_again(
        lambda: consumer.committed(asked, timeout=seconds),
        lambda error: error.code() in NO_COORDINATOR_YET,
        seconds,
        AGAIN_SECONDS,
    )


def stored(found: Sequence[TopicPartition]) -> dict[Partition, layouts.Stored]:
    """Committed offsets as a consumer found them; partitions without one are left out."""
    for item in found:
        if item.error is not None:
            raise translate(item.error, f"reading the offset of {item.topic}/{item.partition}")
    return {
        Partition(item.topic, item.partition): layouts.Stored(item.offset, item.metadata or "")
        for item in found
        if item.offset >= 0
    }


def with_metadata(
    positions: Mapping[Partition, int], layout: Layout, epoch: int, sequence: int
) -> list[TopicPartition]:
    """Positions as they are committed: each with the layout, its owner's epoch and sequence."""
    metadata = layouts.encode(layout, epoch, sequence)
    return [TopicPartition(p.topic, p.number, o, metadata=metadata) for p, o in positions.items()]
