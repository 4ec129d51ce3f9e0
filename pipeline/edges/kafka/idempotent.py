"""Writes records, then the offsets that answer for them: `delivery: at_least_once`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.clients import (
    COMMIT_SECONDS,
    LARGEST_RECORD,
    producer_settings,
    translate,
    translating,
)
from pipeline.edges.kafka.offsets import GroupOffsets, with_metadata
from pipeline.edges.kafka.producing import ColumnProducer, Open, open_producer, produce
from pipeline.errors import Retriable
from pipeline.ports import Claimed

# Enough to queue what is sent at once. What waits longer behind a request that is out makes
# librdkafka's thread spin: it has an idempotent producer send one at a time to a partition.
LINGER_MS = 1


def _gapless(
    settings: Mapping[str, str], queue_rows: int, largest_record: int = LARGEST_RECORD
) -> dict[str, Any]:
    """A record that timed out ends the producer: nothing is delivered behind it.

    Else a commit record could answer for rows that the journal does not hold.
    """
    made = producer_settings(settings, queue_rows, largest_record, LINGER_MS)
    return {**made, "enable.gapless.guarantee": True}


def _produce_at_once(producer: ColumnProducer, records: Iterable[Outgoing]) -> None:
    """Produce without a transaction; raises OutcomeUnknown where the producer has ended."""
    with translating("producing", lambda error: error.fatal()):
        produce(producer, records)


def _refuse_losses(producer: ColumnProducer) -> None:
    """Raise what a record met that was not delivered: ClusterUnfit, Retriable."""
    if (failure := producer.failure()) is not None:
        raise translate(failure, "a record was not delivered")


class KafkaAhead:
    """Predictions ahead of their commits, by a producer of their own: no commit waits in front."""

    def __init__(
        self, settings: Mapping[str, str], queue_rows: int, open_producer: Open = open_producer
    ) -> None:
        self._producer = open_producer(_gapless(settings, queue_rows))

    def arrived(self) -> bool:
        """Whether nothing is queued or on its way."""
        with translating("producing"):
            self._producer.poll(0)
        _refuse_losses(self._producer)
        # What failed and was not told yet counts as left.
        return self._producer.left() == 0

    def wait(self, seconds: float) -> None:
        """Flush, for so long."""
        with translating("producing"):
            self._producer.flush(seconds)

    def send(self, records: Iterable[Outgoing]) -> None:
        """Queue; what the broker refuses shows when it was to have arrived."""
        _produce_at_once(self._producer, records)

    def close(self) -> None:
        """Drop what is not delivered: nothing was committed over it."""
        self._producer.purge()


class IdempotentSink:
    """Records made durable first, offsets committed afterwards: `delivery: at_least_once`."""

    def __init__(
        self,
        settings: Mapping[str, str],
        group: str,
        queue_rows: int,
        largest_record: int = LARGEST_RECORD,
        open_producer: Open = open_producer,
    ) -> None:
        self._offsets = GroupOffsets(settings, group)
        self._producer = open_producer(_gapless(settings, queue_rows, largest_record))
        self._layout: Layout | None = None
        self._epoch = 0

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        """Read the positions and commit them again; nothing fences an earlier owner."""
        plan = self._offsets.claim_positions(assignment, metadata_kept=False)
        self._layout, self._epoch = assignment.present_layout, plan.epoch
        claimed = Claimed(plan.positions, plan.epoch)
        self.write(opening(claimed), plan.positions, 0)
        return claimed

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        """Produce, wait for all that was produced, look for failures, then commit the offsets."""
        assert self._layout is not None
        _produce_at_once(self._producer, records)
        with translating("producing"):
            self._producer.flush(COMMIT_SECONDS)
        _refuse_losses(self._producer)
        if left := self._producer.left():
            raise Retriable(f"{left} records were not delivered within {COMMIT_SECONDS:.0f} s")
        self._offsets.commit(with_metadata(positions, self._layout, self._epoch, sequence))

    def tend(self) -> None:
        """Serve delivery reports."""
        with translating("producing"):
            self._producer.poll(0)

    def close(self) -> None:
        """Drop what is not delivered: it is not committed either."""
        self._producer.purge()
        self._offsets.close()
