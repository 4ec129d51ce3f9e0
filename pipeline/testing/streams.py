"""The ports to Kafka on a `MemoryLog`: source, sinks, what goes ahead of commits, journal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline import layout as layouts
from pipeline.batch import Headers, Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.errors import ClusterUnfit, HeadraceError, OutcomeUnknown, Retriable
from pipeline.ports import Claimed, JournalRecord, Polled
from pipeline.testing.forms import Record, Transaction, no_wait
from pipeline.testing.log import MemoryLog


class MemorySource:
    """Reads one topic; `wait` is given the timeout of a poll that finds nothing, or is to fill."""

    def __init__(self, log: MemoryLog, topic: str, wait: Callable[[float], None] = no_wait) -> None:
        self._log = log
        self._topic = topic
        self._wait = wait
        self._positions: dict[Partition, int] | None = None
        # The end that was last told of each partition.
        self._told: dict[Partition, int] = {}

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Start reading; once."""
        assert self._positions is None, "assigned twice"
        self._positions = dict(positions)

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        """At most `max_records`; an end takes the place of one, as it does in librdkafka."""
        assert self._positions is not None, "polled before it was assigned"
        if fill:
            self._wait(timeout)
        rows: list[tuple[int, Record]] = []
        ends: dict[int, int] = {}
        for partition, position in self._positions.items():
            room = max_records - len(rows) - len(ends)
            if room <= 0:
                break
            found, following = self._log.read(partition, position, room)
            self._positions[partition] = following
            rows.extend((partition.number, record) for record in found)
            end = self._log.stable_end(partition)
            if following == end and len(found) < room and self._told.get(partition) != end:
                ends[partition.number] = self._told[partition] = end
        if not (rows or ends or fill):
            self._wait(timeout)
        headers: list[Headers] = [record.headers for _, record in rows]
        return Polled(
            partitions=np.array([number for number, _ in rows], np.int32),
            offsets=np.array([record.offset for _, record in rows], np.int64),
            timestamps=np.array([record.timestamp for _, record in rows], np.int64),
            keys=pa.array([record.key for _, record in rows], pa.binary()),
            values=pa.array([record.value for _, record in rows], pa.binary()),
            headers=headers if any(headers) else None,
            ends=ends,
        )

    def close(self) -> None:
        """Forget the positions."""
        self._positions = {}


def _claim(
    log: MemoryLog, group: str, assignment: Assignment, stored: Mapping[Partition, layouts.Stored]
) -> Claimed:
    plan = layouts.plan_claim(assignment, stored, group)
    plan.positions.update({partition: log.start(partition) for partition in plan.fresh})
    return Claimed(plan.positions, plan.epoch)


def _offsets(
    positions: Mapping[Partition, int], layout: Layout, epoch: int, sequence: int
) -> dict[Partition, layouts.Stored]:
    metadata = layouts.encode(layout, epoch, sequence)
    return {partition: layouts.Stored(offset, metadata) for partition, offset in positions.items()}


def _append(log: MemoryLog, records: Iterable[Outgoing], transaction: Transaction) -> None:
    for place, key, value, headers in _placed(log, records):
        log.append(place, key, value, headers, transaction=transaction)


def _placed(
    log: MemoryLog, records: Iterable[Outgoing]
) -> Iterator[tuple[Partition, bytes | None, bytes | None, Headers]]:
    """Each record with where it belongs."""
    for group in records:
        for row, (key, value) in enumerate(group.pairs()):
            place = (
                log.place(group.topic, key)
                if group.partition is None
                else Partition(group.topic, group.partition)
            )
            yield place, key, value, None if group.headers is None else group.headers[row]


# How often a client sends an EndTxn that nobody answers, before it calls the outcome unknown.
END_REQUESTS = 3


class MemorySink:
    """One slot's transactional sink. After an error it refuses to be used again.

    So it does once a commit took more than one EndTxn: the first one may still come, late.
    """

    def __init__(self, log: MemoryLog, group: str, transactional_id: str) -> None:
        self._log = log
        self._group = group
        self._id = transactional_id
        self._broken: HeadraceError | None = None
        self._layout: Layout | None = None
        self._producer_epoch = self._epoch = 0
        self._end_requests = 1

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        """Init, stable read, and the same offsets again one epoch later, in this order."""
        assert self._layout is None, "claimed twice"
        self._producer_epoch = self._log.init(self._id)
        stored = self._log.committed(self._group, assignment.partitions)
        claimed = _claim(self._log, self._group, assignment, stored)
        layouts.refuse_other_run(assignment, stored, self._group)
        self._layout, self._epoch = assignment.present_layout, claimed.epoch
        self.write(opening(claimed), claimed.positions, 0)
        return claimed

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        """One transaction; what the log refuses aborts it."""
        assert self._layout is not None, "written before the claim"
        assert self._broken is None, f"used after {self._broken!r}"
        if self._end_requests != 1:
            raise OutcomeUnknown(f"{self._id}: the last commit took {self._end_requests} EndTxn")
        transaction = self._log.begin(self._id, self._producer_epoch)
        try:
            _append(self._log, records, transaction)
            offsets = _offsets(positions, self._layout, self._epoch, sequence)
            self._log.send_offsets(transaction, self._group, offsets)
            self._commit(transaction)
        except (ClusterUnfit, Retriable) as problem:
            self._broken = problem
            self._log.abort(transaction)
            raise
        except HeadraceError as problem:
            self._broken = problem
            raise

    def _commit(self, transaction: Transaction) -> None:
        """Send EndTxn until it is answered."""
        for requests in range(1, END_REQUESTS + 1):
            self._end_requests = requests
            try:
                self._log.commit(transaction)
            except Retriable:
                continue
            return
        raise OutcomeUnknown(f"{self._id}: no answer to {END_REQUESTS} EndTxn")

    def tend(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Leave what is open to the next claim, which aborts it."""


def _deliver(
    log: MemoryLog, records: Iterable[Outgoing], failed: dict[Partition, Retriable]
) -> None:
    """Append; nothing follows a record that was lost into its partition, and `failed` has why."""
    for place, key, value, headers in _placed(log, records):
        if place not in failed:
            try:
                log.append(place, key, value, headers)
            except Retriable as problem:
                failed[place] = problem


class MemoryAhead:
    """Records ahead of their commit: on their way until `arrives` says that they are there."""

    def __init__(self, log: MemoryLog, arrives: Callable[[], bool] = lambda: True) -> None:
        self._log = log
        self._arrives = arrives
        self._waiting: list[Outgoing] = []
        self._failed: dict[Partition, Retriable] = {}

    def arrived(self) -> bool:
        """Whether nothing is on its way; a record that was lost shows here."""
        if self._waiting and self._arrives():
            _deliver(self._log, self._waiting, self._failed)
            self._waiting.clear()
        for problem in self._failed.values():
            raise problem
        return not self._waiting

    def wait(self, seconds: float) -> None:
        """What is on its way arrives when it is asked for."""

    def send(self, records: Iterable[Outgoing]) -> None:
        """Send; nothing is seen of it yet."""
        self._waiting.extend(records)

    def close(self) -> None:
        """Drop what is on its way."""
        self._waiting.clear()


class MemoryIdempotentSink:
    """Records first, offsets afterwards, and no fence."""

    def __init__(self, log: MemoryLog, group: str) -> None:
        self._log = log
        self._group = group
        self._layout: Layout | None = None
        self._epoch = 0
        # Why a record of the partition was not delivered; the first one ends this sink's use.
        self._failed: dict[Partition, Retriable] = {}

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        """Read the positions and commit them again; offsets without metadata are taken as ours."""
        assert self._layout is None, "claimed twice"
        ours = layouts.encode(assignment.layout, 0, 0)
        stored = {
            partition: item if item.metadata else layouts.Stored(item.offset, ours)
            for partition, item in self._log.committed(self._group, assignment.partitions).items()
        }
        claimed = _claim(self._log, self._group, assignment, stored)
        self._layout, self._epoch = assignment.present_layout, claimed.epoch
        self.write(opening(claimed), claimed.positions, 0)
        return claimed

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        """Append, look for failures, then commit."""
        assert self._layout is not None, "written before the claim"
        _deliver(self._log, records, self._failed)
        for problem in self._failed.values():
            raise problem
        offsets = _offsets(positions, self._layout, self._epoch, sequence)
        self._log.commit_offsets(self._group, offsets)

    def tend(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held."""


class MemoryJournal:
    """Reads every partition of the journal; `wait` as with `MemorySource`."""

    def __init__(
        self,
        log: MemoryLog,
        group: str,
        topic: str,
        partitions: int,
        wait: Callable[[float], None] = no_wait,
    ) -> None:
        self._log = log
        self._group = group
        self._partitions = [Partition(topic, number) for number in range(partitions)]
        self._wait = wait
        self._positions: dict[Partition, int] = {}
        self._told: dict[Partition, int] = {}

    def start(self) -> Mapping[int, tuple[int, str]]:
        """The progress, or the log's start the first time."""
        stored = self._log.committed(self._group, self._partitions)
        found = {}
        for partition in self._partitions:
            low = self._log.start(partition)
            item = stored.get(partition, layouts.Stored(low, ""))
            # An offset out of range is found out here, and not at the first poll.
            self._log.read(partition, item.offset, 0)
            self._positions[partition] = item.offset
            found[partition.number] = (item.offset, item.metadata)
        return found

    def poll(
        self, max_records: int, timeout: float
    ) -> tuple[Sequence[JournalRecord], Mapping[int, int]]:
        """Records, and the ends that were met after them."""
        records: list[JournalRecord] = []
        ends: dict[int, int] = {}
        for partition, position in self._positions.items():
            room = max_records - len(records) - len(ends)
            if room <= 0:
                break
            found, following = self._log.read(partition, position, room)
            self._positions[partition] = following
            number = partition.number
            records.extend(
                JournalRecord(number, r.offset, r.timestamp, r.key or b"", r.value or b"")
                for r in found
            )
            end = self._log.stable_end(partition)
            if following == end and len(found) < room and self._told.get(partition) != end:
                ends[number] = self._told[partition] = end
        if not records and not ends:
            self._wait(timeout)
        return records, ends

    def ends(self) -> Mapping[int, int]:
        """Last stable offsets."""
        return {p.number: self._log.stable_end(p) for p in self._partitions}

    def save(self, progress: Mapping[int, tuple[int, str]]) -> None:
        """Commit positions with their notes."""
        topic = self._partitions[0].topic
        self._log.commit_offsets(
            self._group,
            {Partition(topic, n): layouts.Stored(at, note) for n, (at, note) in progress.items()},
        )

    def close(self) -> None:
        """Nothing is held."""
