"""Journal to Parquet: the same rows under the same name, however often it is done again.

Everything a file holds comes from the journal: its rows, date, schema and compression from the
chunks, its end from a roll record. The archiver so needs no job config, and a file that was being
written when its archiver died is simply made again.

Rows are accepted only where they continue what was accepted before (`pipeline.archived`). Under
`exactly_once` that is always so. Under `at_least_once` it drops what was repeated. Each chunk is
taken or dropped by itself, as soon as it is read: to wait for its commit record would lose it where
a successor's boundary comes between the two, though the offsets may be committed nevertheless.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import journal
from pipeline.archived import Archived, decode_note, encode_note
from pipeline.control import ArchiveReport
from pipeline.layout import KEEP_ALIVE_SECONDS
from pipeline.ports import Attempt, Clock, FileStore, JournalReader, JournalRecord

log = logging.getLogger("headrace.archive")

# Row groups of this many rows compress well and read fast; it also bounds what is held in memory,
# with the bytes below, for each journal partition.
GROUP_ROWS = 65_536
GROUP_BYTES = 16 << 20
POLL_RECORDS = 64
POLL_SECONDS = 0.05


@dataclass(slots=True)
class _File:
    """The file in the making of one journal partition."""

    attempt: Attempt
    rows: list[pa.Table] = field(default_factory=list)
    count: int = 0
    nbytes: int = 0


@dataclass(slots=True)
class _Line:
    """One journal partition: where it is read, what was accepted, what waits for its boundary.

    `bounded` says that no record follows the newest boundary so far, `ended` that the broker has
    told of none beyond the position.
    """

    position: int
    archived: Archived
    bounded: bool = False
    ended: bool = False
    file: _File | None = None
    pending_rows: int = 0
    pending_since: int | None = None


class Archiver:
    """Owns the files and the progress of every journal partition; used by one thread."""

    def __init__(
        self, reader: JournalReader, files: FileStore, clock: Clock, memory: Callable[[], int]
    ) -> None:
        self._reader = reader
        self._files = files
        self._clock = clock
        self._memory = memory
        self._lines = {
            number: _Line(position, decode_note(note))
            for number, (position, note) in reader.start().items()
        }
        self._rows = 0
        self._made = 0
        self._saved_at = clock.monotonic()

    def turn(self, seconds: float) -> ArchiveReport:
        """Read and archive for at most about `seconds`, and say how far it came.

        Raises ClusterUnfit where the disk refuses or the journal cannot be read, Retriable.
        """
        deadline = self._clock.monotonic() + seconds
        met: set[int] = set()
        while self._clock.monotonic() < deadline:
            records, ends = self._reader.poll(POLL_RECORDS, POLL_SECONDS)
            progress: dict[int, tuple[int, str]] = {}
            for record in records:
                met.discard(record.partition)
                if self._read(record):
                    progress[record.partition] = self._progress(record.partition)
            met |= ends.keys()
            for number, end in ends.items():
                if self._ended(number, end):
                    progress[number] = self._progress(number)
            if self._clock.monotonic() - self._saved_at >= KEEP_ALIVE_SECONDS:
                waiting = (n for n, line in self._lines.items() if _nothing_waits(line))
                progress.update({number: self._progress(number) for number in waiting})
            if progress:
                self._reader.save(progress)
                self._saved_at = self._clock.monotonic()
            if not records and met >= self._lines.keys():
                break
        return self._report()

    def _progress(self, number: int) -> tuple[int, str]:
        line = self._lines[number]
        return line.position, encode_note(line.archived)

    def _ended(self, number: int, end: int) -> bool:
        """Go on to the partition's end, over markers that hold no record; True at a boundary.

        Else retention could remove a marker on which the progress stands for ever: that of a slot
        that is gone, or of a job that was stopped.
        """
        line = self._lines[number]
        line.ended = True
        if end <= line.position or not _nothing_waits(line):
            return False
        line.position = end
        return line.bounded

    def _read(self, record: JournalRecord) -> bool:
        """Take one record in; True at a file boundary."""
        line = self._lines[record.partition]
        line.position = record.offset + 1
        key = journal.read_key(record.key)
        line.bounded = line.ended = False
        if key.kind == journal.ROLL:
            roll = journal.read_roll(record.value)
            if line.archived.takes(roll.layout):
                self._roll(line)
                line.archived.roll(roll)
                line.bounded = True
            return line.bounded
        if key.kind == journal.CHUNK:
            self._chunk(record, line, key)
        else:
            self._commit(record.partition, line, journal.read_commit(record.value))
        return False

    def _chunk(self, record: JournalRecord, line: _Line, key: journal.Key) -> None:
        if not line.archived.takes(key.layout):
            return
        accepted = line.archived.accept(key.spans)
        if not accepted:
            return
        table = journal.read_chunk(record.value)
        if any(accepted.get(n) != (first, following) for n, first, following in key.spans):
            table = only(table, accepted)
        if table.num_rows:
            self._append(record, line, key.date, table)

    @staticmethod
    def _commit(slot: int, line: _Line, commit: journal.CommitRecord) -> None:
        if line.archived.takes(commit.layout):
            # Also over offsets without rows, which no chunk answers for.
            line.archived.accept(commit.spans)
            return
        log.warning(
            "journal partition %d: %d rows of a feeder of layout %d, which should have ended "
            "when layout %d began, are left out of Parquet: its successors score them again",
            slot,
            commit.rows_out,
            commit.layout,
            line.archived.layout,
        )

    def _append(self, record: JournalRecord, line: _Line, date: str, table: pa.Table) -> None:
        if line.pending_since is None:
            line.pending_since = record.timestamp
        if line.file is None:
            name = f"date={date}/{record.partition:04d}-{record.offset:020d}.parquet"
            compression = table.schema.metadata[b"headrace.compression"].decode()
            line.file = _File(self._files.attempt(name, table.schema, compression))
        file = line.file
        file.rows.append(table)
        file.count += table.num_rows
        file.nbytes += table.nbytes
        line.pending_rows += table.num_rows
        if file.count >= GROUP_ROWS or file.nbytes >= GROUP_BYTES:
            self._flush(file)

    @staticmethod
    def _flush(file: _File) -> None:
        if file.rows:
            file.attempt.write(pa.concat_tables(file.rows))
        file.rows, file.count, file.nbytes = [], 0, 0

    def _roll(self, line: _Line) -> None:
        if line.file is not None:
            self._flush(line.file)
            line.file.attempt.publish()
            self._rows += line.pending_rows
            self._made += 1
        line.file = None
        line.pending_rows = 0
        line.pending_since = None

    def _report(self) -> ArchiveReport:
        ends = self._reader.ends()
        lag = sum(max(0, ends[n] - line.position) for n, line in self._lines.items())
        oldest = min(
            (line.pending_since for line in self._lines.values() if line.pending_since is not None),
            default=None,
        )
        pending = sum(line.pending_rows for line in self._lines.values())
        # Of a partition that has moved on, what the newest generation says of it counts.
        by_layout = sorted((line.archived for line in self._lines.values()), key=lambda a: a.layout)
        unfinished = [
            line.archived.layout
            for line in self._lines.values()
            if line.pending_rows or not line.ended
        ]
        return ArchiveReport(
            rows=self._rows,
            files=self._made,
            pending_rows=pending,
            lag=lag,
            oldest=0.0 if oldest is None else max(0.0, self._clock.time() - oldest / 1000),
            rolled={n: at for archived in by_layout for n, at in archived.rolled.items()},
            oldest_layout=min(unfinished, default=None),
            memory_bytes=self._memory(),
        )

    def close(self) -> None:
        """Abandon files in the making, which a later start makes again; give the reader back."""
        for line in self._lines.values():
            if line.file is not None:
                line.file.attempt.abandon()
        self._reader.close()


def _nothing_waits(line: _Line) -> bool:
    """Whether a successor may go on where this line stands: elsewhere its next roll says so."""
    return line.file is None


def only(table: pa.Table, accepted: Mapping[int, tuple[int, int]]) -> pa.Table:
    """The rows whose partition and offset lie in an accepted range."""
    mask = None
    for number, (first, following) in accepted.items():
        offset = table["offset"]
        inside = pc.and_(
            pc.equal(table["partition"], number),
            pc.and_(pc.greater_equal(offset, first), pc.less(offset, following)),
        )
        mask = inside if mask is None else pc.or_(mask, inside)
    return table.slice(0, 0) if mask is None else table.filter(mask)
