"""The whole vocabulary between the driver and its feeders: orders down, a report up."""

import enum
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.batch import Partition


@dataclass(frozen=True, slots=True)
class Layout:
    """Who owns which partition, as it stands in the metadata of every committed offset.

    Partition p of the input belongs to slot `p % slots`. `ordered` says that predictions keep the
    partition number of their record, so that their order is the input's; otherwise they go by key.
    `run` names the run that has opened it last: of two, the later one owns the job.
    """

    generation: int
    slots: int
    partitions: int
    topic_id: str
    ordered: bool
    run: str = field(default="", compare=False)

    def owned(self, topic: str, slot: int, partitions: int) -> tuple[Partition, ...]:
        """The partitions of one slot, of `partitions` that the topic has now."""
        return tuple(Partition(topic, p) for p in range(slot, partitions, self.slots))


class WaitingOn(enum.Enum):
    """What the records of a feeder wait for; only REPLICAS is a reason to add some."""

    RECORDS = "records"
    REPLICAS = "replicas"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class ReplicaRef:
    """One replica as a feeder knows it; `handle` is opaque to all but the edge that made it.

    `gpu` tells those that score on one from those that do not: each kind takes its own time.
    """

    id: int
    handle: Any = field(repr=False, compare=False)
    gpu: bool = False

    @property
    def here(self) -> bool:
        """Whether it lives in the feeder's own process."""
        return self.handle is None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the driver wants of a feeder's next turn.

    `isolation` is a replica of this feeder's own, where batches that are suspected to kill are
    scored one at a time. `seconds` bounds the turn, `batch_size` the records of one batch where it
    is below the configured one. `drain` asks to stop polling, to finish and
    commit what is in flight, and to roll.
    """

    seconds: float
    replicas: tuple[ReplicaRef, ...] = ()
    isolation: ReplicaRef | None = None
    drain: bool = False
    batch_size: int | None = None

    @property
    def scores_here(self) -> bool:
        """Whether the feeder may score in its own process."""
        return any(ref.here for ref in self.replicas)


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """Where one partition stands. Offsets are next offsets; the oldest record waits since then.

    `position` is what has been polled, `done` the settled prefix, `committed` what Kafka holds.
    `oldest` is the timestamp (ms since the epoch) of the oldest record polled and not committed.
    """

    partition: Partition
    start: int
    position: int
    done: int
    committed: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Timing:
    """One scored batch: its rows, the seconds of the scoring, and those there and back."""

    replica: int
    rows: int
    service_seconds: float
    round_trip_seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a feeder says of the turn that ends; counts are totals since the feeder began.

    `lost` are replicas that died or overran their deadline, with the reason: the fleet replaces
    them. `dead` counts dead letters by stage and exception. `drained` says that everything polled
    is committed and rolled after an order to drain.
    """

    slot: int
    epoch: int
    partitions: tuple[PartitionReport, ...]
    records_in: int
    records_out: int
    dead: dict[str, int]
    in_flight: dict[int, int]
    timings: tuple[Timing, ...]
    lost: tuple[tuple[int, str], ...]
    needs_isolation: bool
    waiting_on: WaitingOn
    uncommitted_rows: int
    commits: int
    last_commit_seconds: float | None
    committed_at: float | None
    drained: bool
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a feeder is told once, before its claim: its slot and how to begin.

    `layout` is the stored one, `topic_partitions` what the topic has now. Its first `suspect_rows`
    rows are scored in isolation, because a predecessor died over them;
    `seconds_per_row` is what scoring took it, 0 where that is not known.
    """

    slot: int
    layout: Layout
    partitions: tuple[Partition, ...]
    topic_partitions: int
    suspect_rows: int = 0
    seconds_per_row: float = 0.0

    @property
    def present_layout(self) -> Layout:
        """The layout as it is written from this claim on."""
        return replace(self.layout, partitions=self.topic_partitions)


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What the archiver says of a turn: progress by journal partition, totals since it began.

    `pending_rows` are read and not yet in a visible file; `lag` counts journal offsets up to the
    last stable one; `oldest` is the age in seconds of the oldest journal record not yet archived.
    `rolled` are the next offsets of input partitions at the newest file boundary: whatever lies
    below them is in a visible file, but for what is left of `oldest_layout`, the oldest generation
    of the layout of which rows may still wait.
    """

    rows: int
    files: int
    pending_rows: int
    lag: int
    oldest: float
    rolled: dict[int, int]
    oldest_layout: int | None
    memory_bytes: int
