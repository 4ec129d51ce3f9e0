"""What must be true of one journal partition, and of the files that are made of it.

Chunks are whole with their commit record, which adds up; commits of one owner follow each other,
and an owner's epoch is above its predecessor's; rows stand in their chunk's spans and in order.
Without a fence the records of two writers mix: there each chunk and each commit record counts by
itself, in what it continues of the offsets before.

Between two boundaries lie the rows of one file: once the archiver's progress is beyond the second
one the file is there, before the second one is committed it is not, and it holds just these rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec
import numpy as np
import pyarrow as pa

from pipeline import audit_chunks, journal
from pipeline.anomaly import Anomaly
from pipeline.audit import Audit
from pipeline.audit_chunks import Chunks
from pipeline.audit_files import FilesAudit, by_partition
from pipeline.books import JOURNAL, Book
from pipeline.contents import digests, of_table

# What a reset writes to each journal partition, and what a new owner writes first.
BEGINNINGS = {journal.HANDOVER, journal.OFFSETS}
CLAIMS = {"claim", *BEGINNINGS}


@dataclass(slots=True)
class _Owner:
    """The newest claim of the journal partition, and how far its commits are numbered."""

    writer: str = ""
    epoch: int = 0
    sequence: int = 0


@dataclass(slots=True)
class _Accepted:
    """What the archiver has accepted, by its rule (`pipeline.archived`), of one generation."""

    layout: int = 0
    due: dict[int, int] = field(default_factory=dict)


class JournalAudit:
    """One journal partition; call `record` for each of its records in order, then `end`.

    Its files were listed before the end of the partition was looked up. `cut` says that retention
    has removed records: what stands before the first boundary then is not looked at.
    """

    def __init__(self, audit: Audit, number: int, files: FilesAudit, *, cut: bool) -> None:
        self._audit = audit
        self._number = number
        self._files = files
        self.cut = cut
        self._waiting = cut
        # The journal offset of the first record that counts.
        self._begins: float = inf if cut else 0
        self._owner = _Owner()
        self._accepted = _Accepted()
        # By writer and sequence, until the commit record. Bounded by a commit, and under
        # at_least_once by those that dead writers left between two boundaries.
        self._chunks: dict[tuple[str, int], Chunks] = {}

    # -- records ---------------------------------------------------------------------------------

    def record(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take in the record at a journal offset."""
        try:
            said = journal.read_key(key or b"")
            if said.kind == journal.ROLL:
                self._roll(offset, journal.read_roll(value or b""))
            elif said.kind == journal.COMMIT:
                commit = journal.read_commit(value or b"")
                if self._takes(offset, commit.layout) and not self._waiting:
                    self._commit(offset, commit)
            elif said.kind == journal.CHUNK:
                if self._takes(offset, said.layout) and not self._waiting:
                    self._chunk(offset, said, value or b"")
            else:
                self._add(Anomaly.INVENTED, offset, f"is of no known kind: {said.kind!r}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            self._add(Anomaly.INVENTED, offset, f"is none of headrace's: {problem}")

    def _takes(self, offset: int, layout: int) -> bool:
        """Whether a record counts: an older generation's, of a writer without a fence, does not."""
        before, generation = self._accepted.layout, self._audit.generation
        if layout > before:
            self._accepted, self._owner = _Accepted(layout), _Owner()
            if before < generation <= layout:
                # Whatever came until now belongs to what a reset has ended.
                self._files.forget()
                self._chunks.clear()
                self._begins = inf if self._waiting else offset
        if layout < before and self._audit.promise.exactly_once:
            text = f"is of layout {layout}, after one of layout {before}"
            self._add(Anomaly.STALE_EPOCH, offset, text)
        return layout == self._accepted.layout and layout >= generation

    def _roll(self, offset: int, roll: journal.RollRecord) -> None:
        if roll.reason == journal.OFFSETS and roll.layout > self._audit.generation:
            self._audit.restart(roll.layout, roll.outputs or {})
        if not self._takes(offset, roll.layout):
            return
        if roll.layout == self._audit.generation and roll.reason in BEGINNINGS:
            self._waiting, self._begins, self.cut = False, offset, False
        if self._waiting:
            self._waiting, self._begins = False, offset
            self._begin(roll)
        self._leftovers()
        self._files.boundary(offset)
        self._owned(offset, roll.writer, roll.epoch, claim=roll.reason in CLAIMS)
        for name, position in roll.positions.items():
            number = int(name)
            if number in self._audit.books:
                self._audit.books[number].began(position)
            if roll.reason == journal.HANDOVER:
                continue  # they go on elsewhere
            due = self._accepted.due.setdefault(number, position)
            if self._audit.promise.exactly_once and due != position:
                text = f"says that partition {number} stands at {position}, its commits say {due}"
                self._add(Anomaly.MISMATCHED, offset, text)
                self._accepted.due[number] = position

    def _begin(self, roll: journal.RollRecord) -> None:
        """Under at_least_once the archiver may have accepted more than a feeder knew of.

        What older files hold says how much.
        """
        due = self._accepted.due
        for name, position in roll.positions.items():
            due[int(name)] = position
        if not self._audit.promise.exactly_once:
            for number, end in self._files.accepted(self._begins).items():
                due[number] = max(due.get(number, 0), end)

    def _owned(self, offset: int, writer: str, epoch: int, *, claim: bool) -> None:
        if not self._audit.promise.exactly_once:
            return
        owner = self._owner
        if claim and writer != owner.writer:
            if epoch <= owner.epoch:
                text = f"claims with epoch {epoch} after epoch {owner.epoch}"
                self._add(Anomaly.STALE_EPOCH, offset, text)
            self._owner = _Owner(writer, epoch)
        elif owner.writer == "":
            # Retention has removed the claim.
            self._owner = _Owner(writer, epoch)
        elif (writer, epoch) != (owner.writer, owner.epoch):
            text = (
                f"is of writer {writer[:8]} with epoch {epoch}, and {owner.writer[:8]} owns the "
                f"partition with epoch {owner.epoch}"
            )
            self._add(Anomaly.STALE_EPOCH, offset, text)

    # -- chunks and commits ----------------------------------------------------------------------

    def _chunk(self, offset: int, key: journal.Key, body: bytes) -> None:
        accepted = self._accept(key.spans)
        if not self._audit.promise.exactly_once:
            self._cover(accepted)
        chunks = self._chunks.setdefault((key.writer, key.sequence), Chunks(offset))
        try:
            table = audit_chunks.read(body)
        except (pa.ArrowException, KeyError) as problem:
            chunks.add(key, 0)
            self._add(Anomaly.TORN, offset, f"is no whole chunk: {problem}")
            return
        chunks.add(key, table.num_rows)
        answered = {number: (low, high) for number, low, high in key.spans}
        if strange := table.num_rows - audit_chunks.within(table, answered).num_rows:
            text = f"holds {strange} rows beyond the spans of its key"
            self._add(Anomaly.INVENTED, offset, text)
        taken = audit_chunks.within(table, accepted)
        if taken.num_rows:
            self._rows(offset, taken)
            self._files.expect(offset, key.date, taken)

    def _commit(self, offset: int, commit: journal.CommitRecord) -> None:
        audit, strict = self._audit, self._audit.promise.exactly_once
        chunks = self._chunks.pop((commit.writer, commit.sequence), Chunks(offset))
        self._owned(offset, commit.writer, commit.epoch, claim=False)
        if strict:
            self._leftovers()
            if commit.sequence <= self._owner.sequence:
                text = f"has sequence {commit.sequence} after {self._owner.sequence}"
                self._add(Anomaly.STALE_EPOCH, offset, text)
            self._owner.sequence = commit.sequence
        if commit.rows_in != commit.rows_out + commit.dead:
            text = f"counts {commit.rows_in} rows in, {commit.rows_out} out, {commit.dead} dead"
            self._add(Anomaly.MISMATCHED, offset, text)
        if commit.topic != audit.promise.input_topic:
            self._add(Anomaly.MISMATCHED, offset, f"is of topic {commit.topic}")
            return
        if chunks.count == commit.chunks:
            for anomaly, text in chunks.differences(commit):
                self._add(anomaly, offset, text)
        elif strict:
            # Without a fence a successor's boundary may have come between.
            text = f"has {chunks.count} chunks of {commit.chunks}"
            self._add(Anomaly.TORN, offset, text)
        for number, first, following in commit.spans:
            if number not in audit.books:
                text = f"covers partition {number}, which the input does not have"
                self._add(Anomaly.INVENTED, offset, text)
                continue
            audit.books[number].ended(following, commit.epoch)
            if commit.dead:
                audit.books[number].may_be_dead.add_range(first, following)
        self._cover(self._accept(commit.spans))

    def _cover(self, accepted: Mapping[int, tuple[int, int]]) -> None:
        for number, (first, following) in accepted.items():
            if number in self._audit.books:
                self._audit.books[number].cover(first, following)

    def _accept(self, spans: Sequence[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
        """The part of each span that continues what came before; all of it, where rows are fenced.

        Under exactly_once gaps and overlaps of commits are found when all partitions are known.
        """
        due, accepted = self._accepted.due, {}
        for number, first, following in spans:
            begin = first if self._audit.promise.exactly_once else due.get(number, first)
            if first <= begin < following:
                accepted[number] = (begin, following)
                due[number] = following
        return accepted

    def _rows(self, offset: int, table: pa.Table) -> None:
        said = digests(of_table(table))
        partitions = table["partition"].to_numpy()
        for number, offsets in by_partition(table).items():
            book: Book | None = self._audit.books.get(number)
            if book is None:
                continue
            if (np.diff(offsets) < 0).any():
                text = f"holds rows of partition {number} in another order than their records"
                self._add(Anomaly.REORDERED, offset, text)
            book.learn(int(offsets[0]), table.schema)
            again = book.row.add(offsets)
            if again.any():
                place = self._audit.source(number, int(offsets[again][0]))
                text = f"{place} has more than one row in the journal"
                self._audit.findings.add(Anomaly.DUPLICATE, "journal", text, int(again.sum()))
            mine = said[partitions == number]
            book.add_contents(
                JOURNAL, offsets[~again], mine[~again], self._number, [offset] * len(offsets)
            )

    def _leftovers(self) -> None:
        """Forget chunks whose commit record cannot come any more, or need not."""
        if self._audit.promise.exactly_once:
            for (writer, sequence), chunks in self._chunks.items():
                text = f"is a chunk of commit {sequence} of {writer[:8]}, which has no record"
                self._add(Anomaly.TORN, chunks.offset, text)
        self._chunks.clear()

    def end(self) -> None:
        """Nothing more comes: what has begun there may be a commit that is being made."""
        self._files.end()
        if self._accepted.layout < self._audit.generation:
            self._begins, self.cut = inf, False

    def strays(self) -> list[str]:
        """Visible files that belong to the part that was looked at, and that it does not name."""
        return self._files.strays(self._begins)

    def older(self) -> list[str]:
        """Visible files of what retention removed; rows of older generations may repeat."""
        return [] if self._audit.generation else self._files.between(0, self._begins)

    @property
    def files(self) -> int:
        """How many files were compared with the journal."""
        return self._files.compared

    def _add(self, anomaly: Anomaly, offset: int, text: str) -> None:
        place = f"journal partition {self._number}, offset {offset}"
        self._audit.findings.add(anomaly, "journal", f"{place} {text}")
