"""The status: lag, time lag and totals as values, and one line for a person."""

from pathlib import Path

from msgspec.structs import replace

from pipeline.batch import Partition
from pipeline.control import ArchiveReport, PartitionReport, Report, WaitingOn
from pipeline.keeper import Archive, ArchiveKeeper
from pipeline.scale import decide
from pipeline.scaler import Count, Scaler
from pipeline.settings import parse
from pipeline.slot import Slot
from pipeline.status import (
    PlacementStatus,
    Status,
    archive_status,
    decode,
    encode,
    line,
    partition_statuses,
    scaling_status,
    slot_status,
    summary,
)
from pipeline.testing import ManualClock, MemoryActors

P = Partition("in", 3)


def report(item: PartitionReport) -> Report:
    return Report(
        slot=1,
        epoch=4,
        partitions=(item,),
        records_in=10,
        records_out=9,
        dead={"decode:Bad": 1},
        in_flight={1: 2},
        timings=(),
        lost=(),
        needs_isolation=False,
        waiting_on=WaitingOn.REPLICAS,
        uncommitted_rows=6,
        commits=3,
        last_commit_seconds=0.01,
        committed_at=5.0,
        drained=False,
        memory_bytes=100,
    )


def keeper() -> ArchiveKeeper:
    return ArchiveKeeper(MemoryActors(), ManualClock(), Archive(object, (), None, 1))


def whole() -> Status:
    item = PartitionReport(P, 0, 20, 15, 10, 2_000)
    slot = Slot(1, (P,), report=report(item))
    return Status(
        job="fraud",
        state="running",
        delivery="exactly_once",
        placement=PlacementStatus("remote", "remote", None),
        model_name="fraud",
        model_version="1",
        started_at=0.0,
        at=5.0,
        records_in=1_234_567,
        records_out=9,
        dead_letters={"decode:Bad": 1, "score:NonFinite": 2},
        records_per_second=1234.5,
        lag=20,
        time_lag=3.0,
        feeders_replaced=0,
        replicas_replaced=0,
        slots=[slot_status(slot)],
        partitions=partition_statuses(report(item), {("in", 3): 30}, 5.0),
        replicas=[],
        scaling=scaling_status(Scaler(Count(2), "1", decide)),
        archive=archive_status(keeper()),
    )


def test_a_status_reads_back() -> None:
    """What a run puts on its board is what `headrace status` gets."""
    assert decode(encode(whole())) == whole()


def test_lag_counts_from_the_commit_to_the_end() -> None:
    """Lag in offsets to the last stable one, time lag as the age of the oldest record."""
    (found,) = whole().partitions
    assert (found.committed, found.end, found.lag, found.time_lag) == (10, 30, 20, 3.0)


def test_an_end_that_is_older_than_what_was_polled_gives_way() -> None:
    """Ends are asked for now and then; lag is never negative."""
    item = PartitionReport(P, 0, 20, 20, 20, None)
    (found,) = partition_statuses(report(item), {("in", 3): 5}, 5.0)
    assert (found.end, found.lag, found.time_lag) == (20, 0, 0.0)
    (unknown,) = partition_statuses(report(item), {}, 5.0)
    assert unknown.lag == 0


def test_a_clock_behind_the_broker_gives_no_negative_age() -> None:
    """Two machines disagree about the time."""
    item = PartitionReport(P, 0, 20, 15, 10, 9_000)
    (found,) = partition_statuses(report(item), {}, 5.0)
    assert found.time_lag == 0.0


def test_a_slot_without_a_report_has_a_status() -> None:
    """While its first feeder claims."""
    found = slot_status(Slot(0, (P,)))
    assert (found.state, found.epoch, found.commits, found.committed_at) == ("waiting", 0, 0, None)


def test_an_archive_counts_what_its_predecessors_made() -> None:
    """Rows and files of an archiver that was replaced are not forgotten."""
    found = keeper()
    found.finished_rows, found.finished_files = 100, 2
    found.report = ArchiveReport(5, 1, 7, 3, 1.5, {}, None, 0)
    status = archive_status(found)
    assert (status.rows, status.files, status.pending_rows, status.lag) == (105, 3, 7, 3)


def test_the_line_tells_a_person_how_it_stands() -> None:
    """State, rate, lag, dead letters and rows in Parquet in one line."""
    assert line(whole()) == (
        "fraud running: 1,234,567 records, 1,234/s, lag 20 (3.0 s), replicas 0 ready, "
        "dead letters 3, in Parquet 0 (+0 pending)"
    )
    local = replace(whole(), placement=PlacementStatus("auto", "local", "it is cheap"))
    assert "replicas in their feeders, dead letters" in line(local)


def test_the_summary_says_what_was_left_where() -> None:
    """Records, predictions, dead letters with reasons and rows, each with its place."""
    config = parse(
        {"job": "fraud", "model": "models/fraud", "kafka": {"bootstrap.servers": "localhost:9092"}},
        Path("/data"),
        {},
    )
    text = summary(whole(), config)
    assert "1,234,567 in 5.0 s" in text
    assert "9 in topic fraud.predictions" in text
    assert "3 in topic fraud.dead: decode:Bad 1, score:NonFinite 2" in text
    assert "0 rows in 0 files below /data/out/fraud" in text
