"""Each protection turned off, one at a time: parts that lack it. They live here and nowhere else."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import journal
from pipeline.archiver import Archiver
from pipeline.batch import Outgoing, Partition
from pipeline.control import ArchiveReport, Assignment
from pipeline.errors import Retriable
from pipeline.layout import Stored
from pipeline.ports import Claimed, JournalRecord
from pipeline.testing import MemoryAhead, MemoryIdempotentSink, MemorySink
from tests.simulation.plan import Parts
from tests.simulation.watched import GROUP, WatchedFiles, WatchedLog


class ReadsBeforeInit(MemorySink):
    """Reads the offsets first and fences afterwards: what was committed between is done twice."""

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        log = self._log
        early = log.committed(self._group, assignment.partitions)

        class Early:
            def __getattr__(self, name: str) -> Any:
                return getattr(log, name)

            def committed(self, *_: object) -> dict[Partition, Stored]:
                return early

        self._log = Early()  # type: ignore[assignment]
        claimed = super().claim(assignment, opening)
        self._log = log
        return claimed


class UnstableRead(WatchedLog):
    """Reads offsets that a transaction is about to change, as `read_uncommitted` does."""

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Stored]:
        asked = tuple(partitions)
        if group != GROUP:
            return super().committed(group, asked)
        return self._effect("committed", lambda: self.latest(group, asked))


class TrustsEndTxn(MemorySink):
    """Begins again on the producer whose last EndTxn was sent more than once."""

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        self._end_requests = 1
        super().write(records, positions, sequence)


class BoundariesByClock(Archiver):
    """Ends a file when its own clock says so, wherever in the journal that is."""

    _began = 0.0

    def turn(self, seconds: float) -> ArchiveReport:
        report = super().turn(seconds)
        if self._clock.monotonic() - self._began >= 1.0:
            self._began = self._clock.monotonic()
            for line in self._lines.values():
                self._roll(line)
            self._reader.save({number: self._progress(number) for number in self._lines})
        return report

    def _read(self, record: JournalRecord) -> bool:
        line = self._lines[record.partition]
        if journal.read_key(record.key).kind != journal.ROLL:
            return super()._read(record)
        line.position = record.offset + 1
        return False


class EagerCleanUp(Archiver):
    """Removes, when it starts, whatever file its progress does not know: an orphan, it thinks."""

    def __init__(self, reader: Any, files: Any, *others: Any) -> None:
        super().__init__(reader, files, *others)
        for name in list(files.visible):
            slot, _, offset = name.rpartition("/")[2].removesuffix(".parquet").partition("-")
            if int(offset) >= self._lines[int(slot)].position:
                del files.visible[name]


class VisibleBeforeVerified(WatchedFiles):
    """Shows a file under its name while its last rows are still on their way."""

    def publish(self, name: str, table: pa.Table) -> None:
        self.visible[name] = table.slice(0, table.num_rows - 1)
        super().publish(name, table)


class TakesEveryChunk(Archiver):
    """Takes the rows of each chunk, whether or not another writer's stand in a file already."""

    def _chunk(self, record: JournalRecord, line: Any, key: journal.Key) -> None:
        self._append(record, line, key.date, journal.read_chunk(record.value))


class WaitsForCommit(Archiver):
    """Takes chunks with their commit record, and forgets at a boundary those that still wait."""

    def __init__(self, *others: Any) -> None:
        super().__init__(*others)
        self._waiting: dict[int, list[tuple[JournalRecord, Any, journal.Key]]] = {}

    def _chunk(self, record: JournalRecord, line: Any, key: journal.Key) -> None:
        self._waiting.setdefault(record.partition, []).append((record, line, key))

    def _read(self, record: JournalRecord) -> bool:
        kind = journal.read_key(record.key).kind
        waiting = self._waiting.get(record.partition, [])
        if kind == journal.COMMIT:
            commit = journal.read_commit(record.value)
            mine = [one for one in waiting if one[2].writer == commit.writer]
            self._waiting[record.partition] = [one for one in waiting if one not in mine]
            if len(mine) != commit.chunks:
                return False
            for chunk in mine:
                super()._chunk(*chunk)
        elif kind == journal.ROLL:
            waiting.clear()
        return super()._read(record)


class FollowsALoss(MemoryIdempotentSink):
    """Delivers what stands behind a record that was lost, as librdkafka does unless told not to."""

    class Unasked(dict[Partition, Retriable]):
        """Failures that nobody finds before he looks through all of them."""

        def __contains__(self, _: object) -> bool:
            return False

    def __init__(self, *others: Any) -> None:
        super().__init__(*others)
        self._failed = self.Unasked()


class CommitsOverALoss(MemoryIdempotentSink):
    """Commits offsets without a look at what was delivered."""

    class Unseen(dict[Partition, Retriable]):
        """Failures that nobody looks for."""

        def values(self) -> Any:
            return ()

    def __init__(self, *others: Any) -> None:
        super().__init__(*others)
        self._failed = self.Unseen()


class TrustsWhatIsSent(MemoryAhead):
    """Takes what was sent for what has arrived."""

    def arrived(self) -> bool:
        super().arrived()
        return True


def id_of_worker(slot: int, life: str) -> str:
    """An id that no successor shares, and so fences nobody."""
    return f"{GROUP}.{slot:04d}.{life}"


@dataclass(frozen=True, slots=True)
class Switch:
    """One protection that is off, and the delivery that needs it."""

    parts: Parts
    exactly_once: bool = True


SWITCHES = {
    "reads-before-init": Switch(Parts(sink=ReadsBeforeInit)),
    "unstable-read": Switch(Parts(log=UnstableRead)),
    "late-end-trusted": Switch(Parts(sink=TrustsEndTxn)),
    "boundaries-by-clock": Switch(Parts(archiver=BoundariesByClock)),
    "eager-clean-up": Switch(Parts(archiver=EagerCleanUp)),
    "visible-before-verified": Switch(Parts(files=VisibleBeforeVerified)),
    "id-per-worker": Switch(Parts(transactional_id=id_of_worker)),
    "no-roll-at-hand-over": Switch(Parts(rolls_at_hand_over=False)),
    "takes-every-chunk": Switch(Parts(archiver=TakesEveryChunk), exactly_once=False),
    "follows-a-loss": Switch(Parts(idempotent=FollowsALoss), exactly_once=False),
    "commits-over-a-loss": Switch(Parts(idempotent=CommitsOverALoss), exactly_once=False),
    "commits-before-arrival": Switch(Parts(ahead=TrustsWhatIsSent), exactly_once=False),
    "waits-for-commit": Switch(Parts(archiver=WaitsForCommit), exactly_once=False),
}
