"""The archiver's keeper: turns, successors, and the journal's retention."""

import logging

import pytest

from pipeline.batch import Partition
from pipeline.control import ArchiveReport, PartitionReport
from pipeline.errors import ClusterUnfit, Retriable
from pipeline.keeper import DRAINING_FAILURES, HANG_SECONDS, PAUSE_SECONDS, Archive, ArchiveKeeper
from pipeline.ports import ActorLost, Reply
from pipeline.testing import ManualClock, MemoryActors

RETENTION = 1000.0


def report(
    rows: int = 0,
    oldest: float = 0.0,
    rolled: dict[int, int] | None = None,
    oldest_layout: int | None = None,
) -> ArchiveReport:
    return ArchiveReport(
        rows=rows,
        files=1,
        pending_rows=0,
        lag=0,
        oldest=oldest,
        rolled=rolled or {},
        oldest_layout=oldest_layout,
        memory_bytes=1,
    )


class Fake:
    """What the archiver's actor holds; its turns are answered by the tests."""


class Desk:
    def __init__(self) -> None:
        self.actors = MemoryActors()
        self.clock = ManualClock()
        self.keeper = ArchiveKeeper(self.actors, self.clock, Archive(Fake, (), RETENTION, 2))

    def started(self) -> None:
        self.keeper.step(draining=False)
        for reply in self.actors.replies(0.0):
            self.keeper.reply(reply, draining=False)

    def turn(
        self, value: ArchiveReport | None, error: Exception | None = None, **how: bool
    ) -> None:
        self.keeper.reply(Reply(("archiver", "turn"), value, error), how.get("draining", False))


def test_a_started_archiver_is_running_once_it_has_reported() -> None:
    """Its state goes from starting to running with its first report."""
    desk = Desk()
    desk.started()
    assert desk.keeper.state == "starting"
    desk.turn(report(rows=7))
    assert desk.keeper.state == "running"


def test_a_failed_archiver_has_a_successor_and_its_rows_still_count() -> None:
    """After a pause another one starts; what the first one archived is not forgotten."""
    desk = Desk()
    desk.started()
    desk.turn(report(rows=7))
    desk.turn(None, Retriable("the broker is away"))
    assert desk.keeper.state == "waiting"
    desk.keeper.step(draining=False)
    assert len(desk.actors.starts) == 1
    desk.clock.advance(PAUSE_SECONDS)
    desk.keeper.step(draining=False)
    assert len(desk.actors.starts) == 2
    assert desk.keeper.finished_rows == 7


def test_a_hung_archiver_is_replaced() -> None:
    """No answer for `HANG_SECONDS` ends it."""
    desk = Desk()
    desk.started()
    desk.keeper.step(draining=False)
    desk.clock.advance(HANG_SECONDS + 1)
    desk.keeper.step(draining=False)
    assert desk.keeper.state == "waiting"


def test_a_disk_that_refuses_ends_a_drain_and_not_a_run() -> None:
    """While it runs the keeper tries for ever; a drain ends with the disk's own error."""
    desk = Desk()
    full = ClusterUnfit("No space left on device")
    for _ in range(10):
        desk.turn(None, full)
    for _ in range(DRAINING_FAILURES - 1):
        desk.turn(None, full, draining=True)
    with pytest.raises(ClusterUnfit, match="No space left"):
        desk.turn(None, full, draining=True)


def test_a_death_while_draining_is_named() -> None:
    """An actor that dies again and again ends the drain with the reason."""
    desk = Desk()
    for _ in range(DRAINING_FAILURES - 1):
        desk.turn(None, ActorLost("died: out of memory"), draining=True)
    with pytest.raises(ClusterUnfit, match="out of memory"):
        desk.turn(None, ActorLost("died: out of memory"), draining=True)


def test_a_lag_over_a_quarter_of_the_retention_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """The warning is said, and not repeated each turn."""
    desk = Desk()
    desk.started()
    with caplog.at_level(logging.WARNING):
        desk.turn(report(oldest=RETENTION / 4 + 1))
        desk.turn(report(oldest=RETENTION / 4 + 2))
    assert sum("quarter of the journal's retention" in text for text in caplog.messages) == 1


def test_a_lag_over_half_of_the_retention_stops_the_run() -> None:
    """Before rows could be lost to Parquet, scoring stops."""
    desk = Desk()
    desk.started()
    with pytest.raises(ClusterUnfit, match="over half of the journal's retention"):
        desk.turn(report(oldest=RETENTION / 2 + 1))


def test_all_is_archived_once_every_partition_is_rolled_as_far_as_it_is_committed() -> None:
    """A partition whose newest roll lies before its commit is not in the files yet."""
    desk = Desk()
    partitions = [
        PartitionReport(Partition("in", n), 0, 10, 10, committed=10, oldest=None) for n in (0, 1)
    ]
    assert not desk.keeper.has(partitions)
    desk.started()
    desk.turn(report(rolled={0: 10, 1: 9}))
    assert not desk.keeper.has(partitions)
    desk.turn(report(rolled={0: 10, 1: 10}))
    assert desk.keeper.has(partitions)


def test_what_an_older_layout_left_is_waited_for() -> None:
    """Rows of slots that are gone belong to the job's as well, though nobody reports them."""
    desk = Desk()
    desk.started()
    place = PartitionReport(Partition("in", 0), 0, 5, 5, 5, None)
    desk.turn(report(rolled={0: 5}, oldest_layout=1))
    assert not desk.keeper.has([place])
    for present in (2, None):
        desk.turn(report(rolled={0: 5}, oldest_layout=present))
        assert desk.keeper.has([place])
