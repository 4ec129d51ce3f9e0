"""The log and the files of one seed: they write the trace, and watch what is decided."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from pipeline import journal, layout
from pipeline.batch import Headers, Partition
from pipeline.errors import Retriable
from pipeline.layout import Stored
from pipeline.testing import MemoryFiles, MemoryLog, Transaction
from tests.simulation.scheduler import Scheduler

GROUP, ARCHIVE = "job", "job.archive"
INPUT, OUTPUT, DEAD, JOURNAL = "in", "out", "dead", "journal"


class Violation(AssertionError):
    """A promise is broken."""


class WatchedLog(MemoryLog):
    """A log whose markers and offsets follow later, and whose EndTxn may be late.

    It holds every decided transaction to the promises of the group's offsets.
    """

    def __init__(self, scheduler: Scheduler, *, fenced: bool) -> None:
        super().__init__(scheduler.clock.time, scheduler.effect, settle_later=True)
        self.scheduler = scheduler
        self.fenced = fenced
        # Offset, epoch and sequence of the newest decided commit, whether or not it has settled.
        self.decided: dict[Partition, tuple[int, tuple[int, int]]] = {}
        self.delayed: list[tuple[str, int]] = []

    def append(
        self,
        partition: Partition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = None,
        *,
        timestamp: int | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        self.scheduler.about(lambda: f"{partition} {_content(partition.topic, key, value)}")
        return super().append(
            partition, key, value, headers, timestamp=timestamp, transaction=transaction
        )

    def init(self, transactional_id: str) -> int:
        self.scheduler.about(lambda: transactional_id)
        return super().init(transactional_id)

    def send_offsets(
        self, transaction: Transaction, group: str, offsets: Mapping[Partition, Stored]
    ) -> None:
        self.scheduler.about(lambda: _offsets(offsets))
        super().send_offsets(transaction, group, offsets)

    def commit_offsets(self, group: str, offsets: Mapping[Partition, Stored]) -> None:
        self.scheduler.about(lambda: f"{group} {_offsets(offsets)}")
        super().commit_offsets(group, offsets)

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Stored]:
        self.scheduler.about(lambda: group)
        return super().committed(group, partitions)

    def commit(self, transaction: Transaction) -> None:
        name, epoch = transaction.transactional_id, transaction.epoch
        if self.scheduler.late():
            self.scheduler.note(f"LATE EndTxn of {name} epoch {epoch} is on its way")
            self.delayed.append((name, epoch))
            raise Retriable(f"{name}: EndTxn was not answered")
        self.scheduler.about(lambda: f"{name} epoch {epoch}")
        super().commit(transaction)

    def high_water(self, partition: Partition) -> int:
        """The offset after all that was appended, stable or not yet."""
        return len(self._line(partition).records)

    def length(self, source: int, offset: int) -> int | None:
        """That of an input record's value, None for one that no prediction is made of."""
        record, transaction = self._line(Partition(INPUT, source)).records[offset]
        stands = transaction is None or transaction.committed
        good = record is not None and (record.value or b"").startswith(b"v")
        return len(record.value) if stands and good else None

    def deliver(self) -> None:
        """Let the oldest late EndTxn arrive."""
        name, epoch = self.delayed.pop(0)
        self.scheduler.note(f"the late EndTxn of {name} epoch {epoch} arrives")
        self.end(name, epoch)

    def _end(self, transaction: Transaction, *, committed: bool) -> None:
        super()._end(transaction, committed=committed)
        name = transaction.transactional_id
        self.scheduler.note(f"  {name} decides: {'committed' if committed else 'aborted'}")
        if committed:
            self._watch(transaction)

    def _watch(self, transaction: Transaction) -> None:
        for (group, partition), item in transaction.offsets.items():
            if group != GROUP:
                continue
            found = layout.decode(partition, item, group)
            mark = (found.epoch, found.seq)
            if partition in self.decided:
                offset, before = self.decided[partition]
                if item.offset < offset:
                    raise Violation(f"{partition}: offset moves back, {offset} to {item.offset}")
                if mark <= before:
                    raise Violation(f"{partition}: epoch and sequence {mark} after {before}")
            self.decided[partition] = item.offset, mark


class WatchedFiles(MemoryFiles):
    """Files that name themselves in the trace."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler.effect)
        self.scheduler = scheduler

    def attempt(self, name: str, schema: pa.Schema, compression: str) -> Any:
        self.scheduler.about(lambda: name)
        return super().attempt(name, schema, compression)

    def write(self, name: str, groups: list[pa.Table], table: pa.Table) -> None:
        self.scheduler.about(lambda: f"{name} {table.num_rows} rows")
        super().write(name, groups, table)

    def publish(self, name: str, table: pa.Table) -> None:
        self.scheduler.about(lambda: f"{name} {rows_of(table)}")
        super().publish(name, table)


def _content(topic: str, key: bytes | None, value: bytes | None) -> str:
    if topic != JOURNAL:
        return (value or b"-").decode()
    kind = journal.read_key(key or b"").kind
    if kind == journal.CHUNK:
        return f"chunk {rows_of(journal.read_chunk(value or b''))}"
    if kind == journal.COMMIT:
        return f"commit {journal.read_commit(value or b'').spans}"
    roll = journal.read_roll(value or b"")
    return f"roll {roll.reason} {roll.positions}"


def rows_of(table: pa.Table) -> str:
    rows = zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True)
    return "[" + " ".join(f"{number}/{offset}" for number, offset in rows) + "]"


def _offsets(offsets: Mapping[Partition, Stored]) -> str:
    shown = []
    for partition, item in offsets.items():
        extra = ""
        if partition.topic == INPUT and item.metadata:
            found = msgspec.json.decode(item.metadata, type=layout.Metadata)
            extra = f" (layout {found.layout}, epoch {found.epoch}.{found.seq})"
        shown.append(f"{partition}={item.offset}{extra}")
    return ", ".join(shown)
