"""The driver on doubles: it runs a whole job from first record to drained files, and ends well."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import journal, placement
from pipeline.archiver import Archiver
from pipeline.batch import Batch, Outgoing, Partition, Scored
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.control import Assignment, Layout, Orders, ReplicaRef, Report
from pipeline.dispatch import Dispatch
from pipeline.errors import (
    AnotherRunTookOver,
    ClusterUnfit,
    HeadraceError,
    Retriable,
    TooManyDeadLetters,
)
from pipeline.feeder import Feeder, Policies
from pipeline.fleet import Fleet, Kind
from pipeline.keeper import Archive, ArchiveKeeper
from pipeline.layout import Stored, encode, runs
from pipeline.outlook import Policy
from pipeline.ports import Background, Claimed
from pipeline.run import Driver, Work
from pipeline.scale import decide
from pipeline.scaler import Auto, Count, Scaler
from pipeline.settings import parse
from pipeline.slots import Slots
from pipeline.slots import Work as SlotWork
from pipeline.status import Status
from pipeline.testing import (
    SCHEMA,
    ManualClock,
    MemoryActors,
    MemoryFiles,
    MemoryJournal,
    MemoryLog,
    MemoryReplicas,
    MemorySink,
    MemorySource,
    inline,
    score,
)

SLOTS, PARTITIONS = 2, 3
EMPTY = pa.RecordBatch.from_pylist([], schema=SCHEMA)


class Replica:
    """What a replica's actor holds; the feeders' own double does the scoring."""


class World:
    """A whole job in memory: log, files, actors, and the driver's work."""

    def __init__(self, *, window: int = 1000, until_caught_up: bool = True) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock.time)
        for topic, count in (
            ("fraud.events", PARTITIONS),
            ("fraud.predictions", PARTITIONS),
            ("fraud.dead", 1),
            ("fraud.journal", SLOTS),
        ):
            self.log.create(topic, count)
        self.config = parse(
            {
                "job": "fraud",
                "model": "models/fraud",
                "kafka": {"bootstrap.servers": "127.0.0.1:1"},
                "dead_letters": {"window": window},
            },
            Path("/"),
            {},
        )
        self.partitions = [Partition("fraud.events", n) for n in range(PARTITIONS)]
        self.layout = Layout(1, SLOTS, PARTITIONS, "id", True)
        first = Stored(0, encode(self.layout, 0, 0))
        self.log.commit_offsets("fraud", dict.fromkeys(self.partitions, first))
        self.count = Count(2)
        self.standing: tuple[ReplicaRef, ...] = ()
        self.reserved: list[int] = []
        self.actors = MemoryActors(self.clock.advance)
        self.files = MemoryFiles()
        self.until_caught_up = until_caught_up
        self.stop = False
        self.kills: Callable[[Batch], bool] = lambda _: False
        self.score: Callable[[Batch], Scored] = score
        self.replicas: list[MemoryReplicas] = []
        self.auto: Auto | None = None
        self.background: Background = inline
        self.statuses: list[Status] = []
        self.on_status: Callable[[Status], None] = lambda _: None

    def build_feeder(self, assignment: Assignment) -> Feeder:
        config, slot = self.config, assignment.slot
        sink = MemorySink(self.log, "fraud", f"fraud.{slot:04d}")

        def opening(claimed: Claimed) -> list[Outgoing]:
            value = journal.roll("w", claimed.epoch, 1, "claim", "fraud.events", claimed.positions)
            return [Outgoing.of("fraud.journal", slot, [journal.ROLL_KEY], [value])]

        claimed = sink.claim(assignment, opening)
        source = MemorySource(self.log, "fraud.events", self.clock.advance)
        source.assign(claimed.positions)
        batcher = Batcher("fraud.events", claimed.positions, Limits(5, 1 << 20, 0.0))
        replicas = MemoryReplicas(self.score, self.kills, wait=self.clock.advance)
        self.replicas.append(replicas)
        target = Target(
            slot,
            claimed.epoch,
            1,
            f"w{claimed.epoch}",
            "fraud.events",
            "fraud.predictions",
            "fraud.dead",
            "fraud.journal",
            True,
            "sample",
            "1",
            1 << 20,
        )
        return Feeder(
            target=target,
            claimed=claimed,
            suspect_rows=assignment.suspect_rows,
            source=source,
            sink=sink,
            ahead=None,
            batcher=batcher,
            dispatch=Dispatch(replicas, EMPTY, batcher.new_id),
            policies=Policies(config.commit, config.roll, config.dead_letters),
            background=inline,
            clock=self.clock,
            memory=lambda: 0,
        )

    def build_archiver(self) -> Archiver:
        reader = MemoryJournal(
            self.log, "fraud.archive", "fraud.journal", SLOTS, self.clock.advance
        )
        return Archiver(reader, self.files, self.clock, lambda: 0)

    def runs(self, partitions: tuple[Partition, ...]) -> set[str]:
        return runs(self.log.committed("fraud", partitions), "fraud")

    def ends(self) -> dict[Partition, int]:
        return {p: self.log.stable_end(p) for p in self.partitions}

    def show(self, status: Status) -> None:
        self.statuses.append(status)
        self.on_status(status)
        if len(self.statuses) > 2000:
            pytest.fail(f"the run does not end: {status}")

    def driver(self, *, ends: Callable[[], dict[Partition, int]] | None = None) -> Driver:
        slots = SlotWork(
            layout=self.layout,
            topic_partitions=PARTITIONS,
            build=self.build_feeder,
            args=(),
            cpus=0.0,
            max_batch_size=5,
            suspect_rows=0,
            runs=self.runs,
            spares=("feeder",),
            warm=dict,
        )
        owned = [self.layout.owned("fraud.events", n, PARTITIONS) for n in range(SLOTS)]
        return Driver(
            Work(
                config=self.config,
                model=("sample", "1"),
                actors=self.actors,
                clock=self.clock,
                fleet=Fleet(
                    self.actors,
                    self.clock,
                    (),
                    Kind(Replica, 1.0),
                    build_isolated=Replica,
                    standing=self.standing,
                ),
                scaler=Scaler(self.count, "1", decide, self.auto),
                reserve=self.reserved.append,
                slots=Slots(self.actors, self.clock, slots, owned),
                archive=ArchiveKeeper(
                    self.actors, self.clock, Archive(self.build_archiver, (), 7 * 86_400.0, 1)
                ),
                ends=ends or self.ends,
                partitions=lambda: self.partitions,
                background=self.background,
                targets=self.ends() if self.until_caught_up else None,
                show=self.show,
            ),
            lambda: self.stop,
        )

    def feed(self, count: int, value: bytes = b"v") -> None:
        for partition in self.partitions:
            self.log.feed(partition, [value] * count)

    def outcome(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
        """Sources of the predictions, rows in files by partition and offset, dead letters."""
        predictions = [
            tuple(map(int, (record.value or b"").split(b"/")))
            for number in range(PARTITIONS)
            for record in self.log.records("fraud.predictions", number)
        ]
        rows = [
            (row["partition"], row["offset"])
            for table in self.files.visible.values()
            for row in table.select(["partition", "offset"]).to_pylist()
        ]
        dead = len(self.log.records("fraud.dead", 0))
        return sorted(predictions), sorted(rows), dead  # type: ignore[type-var,return-value]


def expected(count: int) -> list[tuple[int, int]]:
    return [(number, offset) for number in range(PARTITIONS) for offset in range(count)]


def test_a_run_scores_what_there_is_and_ends_with_its_files() -> None:
    """Until caught up: every record once in predictions and once in Parquet."""
    world = World()
    world.feed(23)
    status = world.driver().run()
    assert world.outcome() == (expected(23), expected(23), 0)
    assert (status.records_in, status.records_out, status.lag) == (69, 69, 0)
    assert status.archive.rows == 69
    states = list(dict.fromkeys(one.state for one in world.statuses))
    assert states == [s for s in ("starting", "running", "draining", "archiving") if s in states]


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    """Nothing is scored twice over two runs."""
    world = World()
    world.feed(7)
    world.driver().run()
    world.feed(4)
    world.driver().run()
    assert world.outcome() == (expected(11), expected(11), 0)


def test_a_stopped_run_drains_what_it_has_begun() -> None:
    """Asked to stop, it commits and archives all that it polled, and ends without an error."""
    world = World(until_caught_up=False)
    world.feed(50)

    def stop(status: Status) -> None:
        world.stop = status.records_in > 0

    world.on_status = stop
    status = world.driver().run()
    predictions, rows, dead = world.outcome()
    assert predictions == rows
    assert len(rows) == status.records_in > 0
    assert dead == 0


def test_a_killing_record_costs_replicas_and_ends_as_a_dead_letter() -> None:
    """The fleet replaces what dies, an isolation replica finds the record, the rest is scored."""
    world = World()
    world.feed(6)
    world.log.feed(world.partitions[1], [b"kill"])
    world.feed(6)
    world.kills = lambda batch: b"kill" in batch.values.to_pylist()
    status = world.driver().run()
    predictions, rows, dead = world.outcome()
    assert (1, 6) not in predictions
    assert predictions == rows
    assert (len(rows), dead) == (36, 1)
    assert status.replicas_replaced > 0
    assert status.dead_letters == {"replica:ReplicaDied": 1}


def test_a_feeder_that_dies_has_a_successor() -> None:
    """Wherever it dies, the outcome is the same, and the status counts it."""
    world = World(until_caught_up=False)
    world.feed(30)
    died: list[str] = []

    def crash(status: Status) -> None:
        if status.records_in > 0 and not died:
            died.append("once")
            slot = driver._work.slots.slots[0]
            world.actors.die(slot.handle)
        world.stop = status.feeders_replaced > 0 and status.records_in >= 90

    world.on_status = crash
    driver = world.driver()
    status = driver.run()
    assert status.feeders_replaced == 1
    assert world.outcome() == (expected(30), expected(30), 0)


def test_too_many_dead_letters_end_the_run_with_that_error() -> None:
    """The bad window is not committed; what was good before it follows into Parquet later."""
    world = World(window=10)
    world.feed(10)
    world.feed(40, b"bad")
    with pytest.raises(TooManyDeadLetters):
        world.driver().run()
    predictions, rows, dead = world.outcome()
    assert set(rows) <= set(predictions) <= set(expected(10))
    assert dead == 0


def test_replicas_that_are_not_needed_are_given_back_while_the_stream_goes_on() -> None:
    """The number follows the decision, the status says why, and no record is lost or repeated."""
    world = World(until_caught_up=False)
    world.count = Count(3, Policy(1, 3, 60.0, 5, 0.2))
    world.feed(1)
    fed = [1]

    def go_on(status: Status) -> None:
        if fed[0] < status.at - status.started_at:
            world.feed(1)
            fed[0] += 1
        world.stop = status.scaling.downs > 0 and len(status.replicas) == 1

    world.on_status = go_on
    status = world.driver().run()
    predictions, rows, dead = world.outcome()
    # What was fed while it drained is for the next run.
    assert predictions == rows == expected(len(rows) // PARTITIONS)
    assert dead == 0
    assert len(rows) > PARTITIONS * 60
    assert status.scaling.wanted == 1
    assert any("down from 3 to 1" in (one.scaling.reason or "") for one in world.statuses)
    assert set(world.reserved) == {3, 1}


def test_a_slow_model_leaves_the_feeders_once_a_replica_is_ready() -> None:
    """They score until then and never after, the status says why, and nothing is lost."""
    world = World(until_caught_up=False)
    world.standing = (ReplicaRef(0, None),)
    world.count = Count(0, Policy(0, 1, 60.0, 5, 0.2, standing=SLOTS))
    world.auto = Auto(placement.Limits(5, 0.2), world.count, Count(1, Policy(1, 1, 60.0, 5, 0.2)))
    world.score = lambda batch: replace(score(batch), seconds=0.1 * batch.rows)
    fed: list[bool] = []

    def feed_on(status: Status) -> None:
        ready = [one.state for one in status.replicas] == ["ready"]
        # Turns that were queued before it was ready are over some statuses later.
        if fed.count(True) < 10:
            world.feed(5)
            fed.append(ready)
        world.stop = status.records_in == 5 * PARTITIONS * len(fed)

    world.on_status = feed_on
    status = world.driver().run()
    predictions, rows, dead = world.outcome()
    assert (predictions, rows, dead) == (expected(5 * len(fed)), expected(5 * len(fed)), 0)
    for replicas in world.replicas:
        by = [replica for replica, _ in replicas.sent]
        assert set(by) == {0, 1}
        assert by == sorted(by)
    assert status.placement.reason is not None
    assert "would hold a feeder for 500.0 ms" in status.placement.reason


def test_another_run_that_takes_over_ends_this_one_without_a_drain() -> None:
    """The fence of another run leaves it the stream; nothing of ours follows."""
    world = World(until_caught_up=False)
    world.feed(10)
    taken: list[int] = []

    def take_over(status: Status) -> None:
        if status.records_in > 0 and not taken:
            for slot in range(SLOTS):
                world.log.init(f"fraud.{slot:04d}")
            stored = world.log.committed("fraud", world.partitions)
            mark = encode(replace(world.layout, run="another"), 9, 0)
            marked = {p: Stored(item.offset, mark) for p, item in stored.items()}
            world.log.commit_offsets("fraud", marked)
            taken.append(1)
            world.feed(10)

    world.on_status = take_over
    with pytest.raises(AnotherRunTookOver):
        world.driver().run()
    assert all(
        item.offset <= 10 for item in world.log.committed("fraud", world.partitions).values()
    )


@pytest.mark.parametrize("error", [Retriable("no broker"), ClusterUnfit("topic gone")])
def test_ends_that_cannot_be_read_never_lose_the_drain(error: HeadraceError) -> None:
    """A broker that does not tell the ends is no reason to leave work uncommitted."""
    world = World(until_caught_up=False)
    world.feed(5)

    def ends() -> dict[Partition, int]:
        world.stop = bool(world.statuses and world.statuses[-1].records_in == 15)
        if world.clock.monotonic() > 1.0:
            raise error
        return world.ends()

    with contextlib.suppress(ClusterUnfit):
        world.driver(ends=ends).run()
    predictions, rows, _ = world.outcome()
    assert len(predictions) > 0
    assert predictions == rows


def test_a_cluster_that_never_answers_holds_nobody_up() -> None:
    """The lag is not known then, and records are scored, committed and archived all the same."""
    world = World()
    world.feed(5)
    world.background = lambda _: Future()
    world.driver().run()
    assert world.outcome() == (expected(5), expected(5), 0)


def test_a_disk_that_refuses_ends_a_draining_run_with_an_error() -> None:
    """The rows stay in the journal, and the next run with a good disk archives them."""
    world = World()
    world.feed(5)
    world.files.full = True
    with pytest.raises(ClusterUnfit, match=r"output\.parquet"):
        world.driver().run()
    world.files.full = False
    world.driver().run()
    assert world.outcome() == (expected(5), expected(5), 0)


def test_orders_and_reports_travel_between_processes() -> None:
    """What the driver and its feeders say to each other can be pickled."""
    import pickle

    orders = Orders(0.25, (ReplicaRef(1, None),), ReplicaRef(2, None), drain=True)
    assert pickle.loads(pickle.dumps(orders)) == orders
    assert Report.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_partitions_that_are_added_while_it_runs_are_scored_too() -> None:
    """From their log's start, by the slot that they belong to, which claims anew with them."""
    world = World(until_caught_up=False)
    world.feed(4)
    added = Partition("fraud.events", PARTITIONS)

    def grow(status: Status) -> None:
        if status.records_in == 12 and added not in world.partitions:
            world.log.create("fraud.events", PARTITIONS + 1)
            world.log.create("fraud.predictions", PARTITIONS + 1)
            world.log.feed(added, [b"v"] * 5)
            world.partitions.append(added)
        world.stop = status.records_in == 17

    world.on_status = grow
    status = world.driver().run()
    assert (status.records_in, status.feeders_replaced) == (17, 0)
    assert sum(len(table) for table in world.files.visible.values()) == 17
    assert world.log.committed("fraud", [added])[added].offset == 5
