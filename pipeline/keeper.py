"""Keeps the archiver at work: turns, a successor when it dies or hangs, the journal's retention."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.control import ArchiveReport, PartitionReport
from pipeline.errors import ClusterUnfit, HeadraceError
from pipeline.ports import ActorLost, Actors, Clock, Reply

log = logging.getLogger("headrace.archive")

TURN_SECONDS = 0.5
# A turn may write and fsync a whole file to a slow disk.
HANG_SECONDS = 120.0
PAUSE_SECONDS = 2.0
# While a run drains it waits for the files, but not for ever for a disk that refuses them. What
# failed before is forgiven: scoring went on meanwhile.
DRAINING_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Archive:
    """How to start the archiver, and how long the journal keeps what is not archived yet.

    `layout` is the generation that the run writes in.
    """

    build: Callable[..., Any]
    args: tuple[Any, ...]
    retention_seconds: float | None
    layout: int


class ArchiveKeeper:
    """Owns the archiver of a run; used by the driver's thread."""

    def __init__(self, actors: Actors, clock: Clock, archive: Archive) -> None:
        self._actors = actors
        self._clock = clock
        self._archive = archive
        self._handle: Any = None
        self._heard = 0.0
        self._due = 0.0
        self._asked = False
        self._failures = 0
        self._warned = False
        self.pid = 0
        self.report: ArchiveReport | None = None
        self.finished_rows = 0
        self.finished_files = 0

    @property
    def state(self) -> str:
        """Whether it works, starts, or waits for its successor."""
        if self._handle is None:
            return "waiting"
        return "running" if self.report is not None else "starting"

    def step(self, draining: bool) -> None:
        """Start it when it is due, ask for a next turn, replace it when it hangs."""
        now = self._clock.monotonic()
        if self._handle is None:
            if now >= self._due:
                build, args = self._archive.build, self._archive.args
                self._handle = self._actors.start(("archiver", "start"), build, *args, cpus=0.0)
                self._heard, self._asked = now, True
        elif not self._asked:
            self._actors.call(("archiver", "turn"), self._handle, "turn", TURN_SECONDS)
            self._asked = True
        elif now - self._heard > HANG_SECONDS:
            self._replace(ActorLost(f"no answer for {HANG_SECONDS:.0f} s"), draining)

    def reply(self, reply: Reply, draining: bool) -> None:
        """Take a reply in. Raises ClusterUnfit before rows are lost, or if draining cannot end."""
        if reply.error is not None:
            self._replace(reply.error, draining)
            return
        self._heard, self._asked = self._clock.monotonic(), False
        if reply.tag[1] == "start":
            self.pid = reply.value
            return
        report: ArchiveReport = reply.value
        self._failures = 0
        self.report = report
        self._watch_retention(report)

    def _replace(self, error: Exception, draining: bool) -> None:
        """Let another one start after a pause; the journal keeps the rows meanwhile."""
        log.warning("the archiver is replaced in %.0f s: %s", PAUSE_SECONDS, error)
        self._failures += draining
        if self.report is not None:
            self.finished_rows += self.report.rows
            self.finished_files += self.report.files
            self.report = None
        if self._handle is not None:
            self._actors.kill(self._handle)
            self._actors.forget(lambda tag: tag[0] == "archiver")
        self._handle = None
        self._due = self._clock.monotonic() + PAUSE_SECONDS
        if draining and self._failures >= DRAINING_FAILURES:
            raise error if isinstance(error, HeadraceError) else ClusterUnfit(str(error))

    def _watch_retention(self, report: ArchiveReport) -> None:
        retention = self._archive.retention_seconds
        if retention is None:
            return
        if report.oldest > retention / 2:
            raise ClusterUnfit(
                f"the archiver is {report.oldest:.0f} s behind, over half of the journal's "
                f"retention.ms of {retention * 1000:.0f}: scoring stops before rows are lost to "
                "Parquet. Mend the disk, or give the journal a longer retention, and start again"
            )
        if report.oldest > retention / 4 and not self._warned:
            self._warned = True
            log.warning(
                "the archiver is %.0f s behind, over a quarter of the journal's retention",
                report.oldest,
            )

    def has(self, partitions: Iterable[PartitionReport]) -> bool:
        """Whether all that these partitions have committed is in visible files."""
        if self.report is None:
            return False
        oldest, rolled = self.report.oldest_layout, self.report.rolled
        if oldest is not None and oldest < self._archive.layout:
            return False
        return all(rolled.get(item.partition.number, -1) >= item.committed for item in partitions)
