"""The group's committed offsets, with our metadata: read stably, planned, committed."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from pipeline import layout as layouts
from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.clients import consumer_settings, translate, translating

STABLE_READ_SECONDS = 5.0


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
        for partition in plan.fresh:
            with translating(f"finding the start of {partition}"):
                low, _ = self._consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=STABLE_READ_SECONDS
                )
            plan.positions[partition] = low
        return plan

    def read(self, partitions: Sequence[Partition]) -> dict[Partition, layouts.Stored]:
        """The committed offsets; raises Retriable while a transaction on them stays open."""
        asked = [TopicPartition(*partition) for partition in partitions]
        with translating(
            f"group {self.group}: reading offsets within {STABLE_READ_SECONDS:.0f} s, "
            "which an open transaction on them prevents"
        ):
            found = self._consumer.committed(asked, timeout=STABLE_READ_SECONDS)
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
