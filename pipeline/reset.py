"""Setting a job's offsets anew: where each partition goes on, and the boundaries that say so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline import journal
from pipeline.batch import Partition
from pipeline.control import Layout

SKIP_GAP = "skip-gap"


@dataclass(frozen=True, slots=True)
class Move:
    """One partition: where it stood, None where that is not known, and where it goes on.

    Offsets have holes, so that the counts are those of offsets, and of records at most.
    """

    partition: Partition
    before: int | None
    after: int

    @property
    def skipped(self) -> int:
        """Offsets that are never scored."""
        return max(0, self.after - (self.after if self.before is None else self.before))

    @property
    def again(self) -> int:
        """Offsets that are scored once more."""
        return max(0, (self.after if self.before is None else self.before) - self.after)


def skip_gap(
    before: Mapping[Partition, int], starts: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> dict[Partition, int]:
    """Offsets in the log's range as they are, others at the log's start; all three by partition."""
    return {
        p: at if starts[p] <= at <= ends[p] else starts[p]
        for p, at in ((p, before.get(p, -1)) for p in starts)
    }


def boundaries(
    positions: Mapping[Partition, int],
    layout: Layout,
    epoch: int,
    writer: str,
    outputs: Mapping[str, list[int]],
    journal_partitions: int,
) -> Iterator[tuple[int, bytes]]:
    """A roll record for each journal partition, also for those that have no slot any more.

    `outputs` are the ends of the topics that the job writes, by partition, behind which nothing
    of an older generation comes.
    """
    (topic,) = {partition.topic for partition in positions}
    for number in range(journal_partitions):
        own = {p: at for p, at in positions.items() if p.number % layout.slots == number}
        reason, known = journal.HANDOVER, None
        if number < layout.slots:
            reason, known = journal.OFFSETS, outputs
        yield (
            number,
            journal.roll(writer, epoch, layout.generation, reason, topic, own, known),
        )
