"""What the core asks of the world, as Protocols; each edge and each shipped double keeps them.

`tests/contract` holds one suite for each port, run against the real thing and the double.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Batch, Headers, Outgoing, Partition, Scored, data_bytes
from pipeline.control import Assignment, ReplicaRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Polled:
    """Records of one poll, column by column, in the order in which they came.

    Offsets ascend within a partition. `ends` holds, for each partition whose end was met after
    these records, the next offset there (the last stable offset).
    """

    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    keys: pa.Array
    values: pa.Array
    headers: Sequence[Headers] | None
    ends: Mapping[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return data_bytes(self.keys) + data_bytes(self.values)

    def slice(self, start: int, stop: int) -> "Polled":
        """The records `[start, stop)` without what was told of ends."""
        return Polled(
            partitions=self.partitions[start:stop],
            offsets=self.offsets[start:stop],
            timestamps=self.timestamps[start:stop],
            keys=self.keys.slice(start, stop - start),
            values=self.values.slice(start, stop - start),
            headers=None if self.headers is None else self.headers[start:stop],
            ends={},
        )


class Source(Protocol):
    """Reads one topic's partitions, stable records only. Owned by one thread."""

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Start reading each partition at its position; called once, before the first poll."""

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        """What is there once a first record is, or with `fill` once `max_records` are, at most.

        Waits `timeout` seconds at most.

        Raises ClusterUnfit where a position is out of the log's range or the topic is gone.
        """

    def close(self) -> None:
        """Give the connections back; never raises."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim found and fixed: positions by partition and this owner's epoch."""

    positions: Mapping[Partition, int]
    epoch: int


class Sink(Protocol):
    """Writes a slot's output and its offsets as one step; used by one thread at a time.

    The transactional one makes the step atomic; the idempotent one makes records durable first
    and offsets afterwards, so that a crash between them repeats records and loses none. After any
    error the sink is not used again: a successor's claim finds out what holds.
    """

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        """Fence earlier owners, read the slot's positions, commit them again one epoch later.

        `opening` makes the records that go with that commit. Called once, before any write.
        Raises ClusterUnfit where the stored offsets do not fit the assignment, Fenced,
        OutcomeUnknown, Retriable.
        """

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        """Produce `records` and commit `positions`; returns only once both are known to hold.

        Raises Fenced when another owner has claimed the slot, OutcomeUnknown when the broker may
        or may not have applied it (also after a success that a late request could still follow),
        Retriable when nothing was applied.
        """

    def tend(self) -> None:
        """Serve the client's callbacks; called about each second while nothing is being written."""

    def close(self) -> None:
        """Give the connections back; never raises."""


class Ahead(Protocol):
    """Shows records ahead of the commit that answers for them. Owned by the loop's thread.

    Nothing may be committed over what has not arrived.
    """

    def arrived(self) -> bool:
        """Whether all that was sent has arrived: more would not queue behind it, and it is durable.

        Raises what a record met that will not arrive: ClusterUnfit, Retriable.
        """

    def wait(self, seconds: float) -> None:
        """Wait until all that was sent has arrived, but no longer than that."""

    def send(self, records: Iterable[Outgoing]) -> None:
        """Send without waiting. Raises ClusterUnfit, OutcomeUnknown, Retriable."""

    def close(self) -> None:
        """Drop what has not arrived; never raises."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of one dispatched batch: scored, or lost with its replica and the reason why."""

    batch_id: int
    replica: int
    scored: Scored | None
    reason: str = ""


class Replicas(Protocol):
    """Sends batches to replicas and collects answers. Owned by one thread.

    The classic mistake is to wait for one replica: `collect` returns whatever has come.
    """

    def send(self, replica: ReplicaRef, batch: Batch) -> None:
        """Hand the batch to the replica; returns without waiting for a remote one's answer."""

    def collect(self, timeout: float) -> Sequence[Answer]:
        """Answers that have come, waiting at most `timeout` seconds for a first one."""

    def forget(self, replica: int) -> None:
        """Drop what the replica still owes: its batches are given to others."""


# Kind of call, number of its subject, and what else tells calls apart.
Tag: TypeAlias = tuple[Any, ...]


class ActorLost(Exception):
    """An actor died, or failed in a way that is no error of ours; the text says how."""


class ActorDied(ActorLost):
    """The actor's process is gone, or its node, whatever the call was about."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of one call: its value, or the error, one of ours or ActorLost."""

    tag: Tag
    value: Any
    error: Exception | None


class Background(Protocol):
    """Makes calls beside the caller's loop, as an executor's `submit` does."""

    def __call__(self, call: Callable[[], T], /) -> Future[T]:
        """Begin one; its value or error comes in the future."""


class Actors(Protocol):
    """Processes somewhere in the cluster that build an object and answer calls on it, in order."""

    def start(
        self, tag: Tag, build: Callable[..., Any], *args: Any, cpus: float, gpus: float = 0.0
    ) -> Any:
        """Start one; returns its handle at once. The reply to `tag` brings its process id.

        `cpus` and `gpus` are what it reserves in the cluster, and waits for.
        """

    def spare(self, role: str, warm: Callable[[], object]) -> None:
        """Keep an actor that has called `warm` and waits for its object.

        The next `start` of the role, the first part of its tag, takes it if it is ready and if
        nothing is to be reserved, and so is spared a process's start. Then call this again.
        """

    def call(self, tag: Tag, handle: Any, method: str, *args: Any) -> None:
        """Queue a call behind those that the actor has; its reply carries `tag`."""

    def kill(self, handle: Any) -> None:
        """End it at once, whatever it is doing."""

    def replies(self, timeout: float) -> Sequence[Reply]:
        """What has come, waiting at most `timeout` seconds for a first one."""

    def forget(self, matching: Callable[[Tag], bool]) -> None:
        """Drop the replies to the tags that match."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One record of a journal partition; its timestamp is in ms since the epoch."""

    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes


class JournalReader(Protocol):
    """Reads every journal partition, stable records only, and keeps the archive's progress."""

    def start(self) -> Mapping[int, tuple[int, str]]:
        """Where each journal partition goes on: next offset and the note left with it.

        Raises ClusterUnfit where the progress is out of the log's range, Retriable.
        """

    def poll(
        self, max_records: int, timeout: float
    ) -> tuple[Sequence[JournalRecord], Mapping[int, int]]:
        """Records in offset order by partition, and the ends that were met after them.

        An end is the last stable offset of its partition, which markers may part from its records.
        """

    def ends(self) -> Mapping[int, int]:
        """The last stable offset of each journal partition."""

    def save(self, progress: Mapping[int, tuple[int, str]]) -> None:
        """Commit the progress; returns only once it holds. Raises Retriable."""

    def close(self) -> None:
        """Give the connections back; never raises."""


class Attempt(Protocol):
    """One attempt at one file: invisible until published, gone when abandoned."""

    def write(self, table: pa.Table) -> None:
        """Append the rows as one row group. Raises ClusterUnfit when the disk refuses."""

    def publish(self) -> None:
        """Make the file durable, then visible under its name, whole, in one step."""

    def abandon(self) -> None:
        """Remove the attempt; never raises."""


class FileStore(Protocol):
    """Where Parquet files live. Object stores will be another one of these."""

    def attempt(self, name: str, schema: pa.Schema, compression: str) -> Attempt:
        """Begin a file; `name` is relative to the root, with `/` between folders."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one partition in offset order, column by column, as a check reads them back.

    `position` is the offset after them, and after what follows them and holds no record.
    """

    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]
    position: int


class Unreadable(Exception):
    """A file that is no whole Parquet file; the text says why."""


class ParquetFiles(Protocol):
    """Reads visible files, for whoever checks them."""

    def names(self) -> Sequence[str]:
        """Names relative to the root of all Parquet files that a reader of the root would see."""

    def rows(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in order, some at a time; raises Unreadable, at a later one too."""


class Clock(Protocol):
    """Time as the roles see it, so that a simulation can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for ages and deadlines."""

    def time(self) -> float:
        """Seconds since the epoch, for timestamps and dates."""

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""
