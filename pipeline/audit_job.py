"""The audit of a whole job: what is read in which order, and how much of it could be looked at."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeAlias

import msgspec
import numpy as np

from pipeline.audit import Audit, Promise
from pipeline.audit_files import FilesAudit, audit_strays, slot_and_offset
from pipeline.audit_inputs import audit_end, audit_inputs, first_offset
from pipeline.audit_journal import JournalAudit
from pipeline.audit_rows import RowsAudit
from pipeline.books import JOURNAL, TOPIC, Spots
from pipeline.ports import ParquetFiles, Records

# Told what is read and how many offsets of how many are done.
Show: TypeAlias = Callable[[str, int, int], None]


class Reader(Protocol):
    """Reads topics as a `read_committed` reader sees them."""

    def read(self, topic: str, number: int, first: int, end: int) -> Iterator[Records]:
        """The records of `[first, end)`, some at a time."""


class Range(msgspec.Struct, frozen=True):
    """The offsets `[first, next)` of one input partition that were looked at, and their records.

    `whole` says that they are all that the job has answered since its start or its last reset.
    """

    partition: int
    first: int
    next: int
    records: int
    whole: bool


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at, fixed before anything is read, in the order of the fields.

    So a job may go on meanwhile: whatever a file holds was committed before `committed` was read,
    and whatever is committed lies below the ends in `bounds`, which gives the log's start and end
    by topic and partition. `archived` is the archiver's progress, `names` are the visible files,
    `files` is None where there is no folder to look at. `committed` is -1 for a partition that has
    no offset yet; `epochs` stand in its metadata.
    """

    journal_topic: str
    archived: Mapping[int, int]
    files: ParquetFiles | None
    names: Sequence[str]
    committed: Mapping[int, int]
    epochs: Mapping[int, int]
    bounds: Mapping[str, Mapping[int, tuple[int, int]]]


class JobAudit:
    """One audit of a whole job, from the topics and the folder, one partition after another.

    `audit` holds what was found, `ranges` what was looked at, `unknown` why a part could not be,
    `files` how many were compared with the journal.
    """

    def __init__(self, promise: Promise, view: View, reader: Reader, show: Show) -> None:
        self._view = view
        self._reader = reader
        self._show = show
        self._cut = False
        self._done = 0
        self._total = sum(
            high - low for bounds in view.bounds.values() for low, high in bounds.values()
        )
        self.audit = Audit(promise, view.committed)
        self.ranges: list[Range] = []
        self.unknown: list[str] = []
        self.files = 0

    def run(self, committed_since: Callable[[], Mapping[int, int]]) -> None:
        """Read everything; `committed_since` reads the committed offsets again, at the end."""
        self._journal()
        self._outputs()
        for number, offset in self._view.committed.items():
            if offset >= 0:
                self._input(number)
        audit_end(self.audit, committed_since(), self._view.epochs)
        self._suspects()

    def _journal(self) -> None:
        view, audit = self._view, self.audit
        topic = view.journal_topic
        lines = []
        for number, (low, high) in sorted(view.bounds[topic].items()):
            archived = view.archived.get(number, 0)
            files = FilesAudit(audit, number, view.files, view.names, archived)
            line = JournalAudit(audit, number, files, cut=low > 0)
            lines.append(line)
            for records in self._read(topic, number, low, high):
                for place, key, value in zip(
                    records.offsets, records.keys, records.values, strict=True
                ):
                    line.record(place, key, value)
            line.end()
        # Before a reset that was found, nothing is asked about.
        self._cut = any(line.cut for line in lines)
        if view.files is not None:
            for line in lines:
                audit_strays(audit, view.files, line.strays(), older=False)
                audit_strays(audit, view.files, line.older(), older=True)
            foreign = [n for n in view.names if (slot_and_offset(n) or (inf, 0))[0] >= len(lines)]
            audit_strays(audit, view.files, foreign, older=False)
        self.files = sum(line.files for line in lines)

    def _outputs(self) -> None:
        audit, promise = self.audit, self.audit.promise
        for topic, take in (
            (promise.predictions_topic, audit.predictions),
            (promise.dead_topic, audit.dead_letters),
        ):
            starts = audit.outputs.get(topic, ())
            for number, (low, high) in sorted(self._view.bounds[topic].items()):
                start = starts[number] if number < len(starts) else 0
                audit.open(topic, number, cut=low > start)
                for records in self._read(topic, number, max(low, start), high):
                    take(number, records)

    def _input(self, number: int) -> None:
        audit, book = self.audit, self.audit.books[number]
        topic = audit.promise.input_topic
        log_start, _ = self._view.bounds[topic][number]
        first = at = first_offset(book, log_start)
        for records in self._read(topic, number, first, book.committed):
            following = records.position
            offsets = np.array(records.offsets, np.int64)
            audit_inputs(audit, number, at, following, offsets)
            at = following
        began = book.start is not None and not self._cut
        removed = [] if began else ["the journal"]
        if began and log_start > (book.start or 0):
            removed.append("the input")
        if book.cut:
            first = max(first, book.cut)
            removed.append("outputs")
        if removed and book.committed > 0:
            self.unknown.append(
                f"{topic}/{number}: retention removed {' and '.join(removed)} below offset {first}"
            )
        self.ranges.append(Range(number, first, book.committed, book.records, not removed))

    def _suspects(self) -> None:
        """Read the windows again in which the topic and the journal differ."""
        audit, view = self.audit, self._view
        for number, book in audit.books.items():
            for window, contents in book.suspects():
                rows = RowsAudit(audit, number, window)
                for records in self._again(view.journal_topic, contents.spots[JOURNAL]):
                    for key, value in zip(records.keys, records.values, strict=True):
                        rows.journal(key, value)
                for records in self._again(audit.promise.predictions_topic, contents.spots[TOPIC]):
                    rows.predictions(records)
                rows.finish()

    def _again(self, topic: str, spots: Spots) -> Iterator[Records]:
        for number, (low, high) in sorted(spots.items()):
            self._total += high + 1 - low
            yield from self._read(topic, number, low, high + 1)

    def _read(self, topic: str, number: int, low: int, high: int) -> Iterator[Records]:
        at = low
        for records in self._reader.read(topic, number, low, high):
            yield records
            self._done += records.position - at
            at = records.position
            self._show(f"{topic}/{number}", self._done, self._total)
