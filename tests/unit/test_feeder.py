"""The feeder on doubles: what it commits and when, and what it never commits."""

import datetime
import time
from collections.abc import Callable

import pyarrow as pa
import pytest

from pipeline import journal
from pipeline.batch import Batch, Partition, Scored
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.config import CommitPolicy, DeadLetters, Roll
from pipeline.control import Assignment, Layout, Orders, ReplicaRef, Report, WaitingOn
from pipeline.dispatch import Dispatch
from pipeline.errors import Fenced, Retriable, TooManyDeadLetters
from pipeline.feeder import Background, Feeder, Policies
from pipeline.layout import Stored, encode
from pipeline.ports import Polled
from pipeline.testing import (
    SCHEMA,
    ManualBackground,
    ManualClock,
    MemoryAhead,
    MemoryIdempotentSink,
    MemoryLog,
    MemoryReplicas,
    MemorySink,
    MemorySource,
    inline,
    score,
)

GROUP, REPLICA = "job", ReplicaRef(0, None)
P, Q = Partition("in", 0), Partition("in", 1)
EMPTY = pa.RecordBatch.from_pylist([], schema=SCHEMA)


class World:
    """One input topic of two partitions, and a feeder that owns both."""

    def __init__(
        self,
        *,
        commit: CommitPolicy | None = None,
        roll: Roll | None = None,
        dead: DeadLetters | None = None,
        background: Background = inline,
        batch_rows: int = 4,
        suspect_rows: int = 0,
        scoring: Callable[..., Scored] = score,
        source: Callable[[MemoryLog, str], MemorySource] = MemorySource,
        clock: ManualClock | None = None,
        exactly_once: bool = True,
    ) -> None:
        self.clock = clock or ManualClock()
        self.log = MemoryLog(self.clock.time)
        for topic, count in (("in", 2), ("out", 2), ("dead", 1), ("journal", 1)):
            self.log.create(topic, count)
        self.layout = Layout(1, 1, 2, "id", True)
        first = Stored(0, encode(self.layout, 0, 0))
        self.log.commit_offsets(GROUP, {P: first, Q: first})
        self.policies = Policies(
            commit or CommitPolicy(interval_ms=200, max_rows=100, max_bytes=1 << 20),
            roll or Roll(),
            dead or DeadLetters("dead", 0.1, 1_000),
        )
        self.background = background
        self.batch_rows = batch_rows
        self.suspect_rows = suspect_rows
        self.source = source
        self.exactly_once = exactly_once
        self.arrived = True
        self.replicas = MemoryReplicas(scoring)
        self.orders = Orders(0.0, (REPLICA,))
        self.feeder = self.start()

    def sink(self) -> MemorySink:
        return MemorySink(self.log, GROUP, f"{GROUP}.0000")

    def start(self) -> Feeder:
        sink: MemorySink | MemoryIdempotentSink = self.sink()
        ahead = None
        if not self.exactly_once:
            sink = MemoryIdempotentSink(self.log, GROUP)
            ahead = MemoryAhead(self.log, lambda: self.arrived)
        claimed = sink.claim(Assignment(0, self.layout, (P, Q), 2), lambda _: [])
        source = self.source(self.log, "in")
        source.assign(claimed.positions)
        batcher = Batcher("in", claimed.positions, Limits(self.batch_rows, 1 << 20, 0.0))
        target = Target(
            0, claimed.epoch, 1, "w", "in", "out", "dead", "journal", True, "m", "1", 1 << 20
        )
        return Feeder(
            target=target,
            claimed=claimed,
            suspect_rows=self.suspect_rows,
            source=source,
            sink=sink,
            ahead=ahead,
            batcher=batcher,
            dispatch=Dispatch(self.replicas, EMPTY, batcher.new_id),
            policies=self.policies,
            background=self.background,
            clock=self.clock,
            memory=lambda: 0,
        )

    def feed(self, partition: Partition, *values: bytes | None) -> None:
        self.log.feed(partition, values)

    def turns(self, count: int = 8, seconds: float = 0.0) -> Report:
        """Some steps of the loop, `seconds` of the clock after each."""
        for _ in range(count):
            report = self.feeder.turn(self.orders)
            self.clock.advance(seconds)
        return report

    def drain(self) -> Report:
        self.orders = Orders(0.0, (REPLICA,), drain=True)
        for _ in range(50):
            report = self.feeder.turn(self.orders)
            if report.drained:
                return report
        pytest.fail("the feeder did not drain")

    def committed(self) -> dict[Partition, int]:
        return {p: item.offset for p, item in self.log.committed(GROUP, (P, Q)).items()}

    def predictions(self, number: int = 0) -> list[bytes | None]:
        return [record.value for record in self.log.records("out", number)]

    def journal(self, kind: str) -> list[bytes]:
        records = self.log.records("journal", 0)
        return [r.value or b"" for r in records if journal.read_key(r.key or b"").kind == kind]


def test_nothing_is_committed_before_the_interval() -> None:
    """What is scored waits for the interval, then goes out with its positions."""
    world = World()
    world.feed(P, b"a", b"b")
    report = world.turns()
    assert (world.predictions(), report.uncommitted_rows) == ([], 2)
    world.clock.advance(0.2)
    report = world.turns()
    assert world.predictions() == [b"0/0", b"0/1"]
    assert world.committed()[P] == 2
    assert (report.records_in, report.records_out, report.uncommitted_rows) == (2, 2, 0)
    assert report.commits == 1


def test_at_least_once_predictions_leave_before_their_commit() -> None:
    """They do not wait for the interval; journal and offsets do, and nothing is sent twice."""
    world = World(exactly_once=False)
    world.feed(P, b"a", b"b")
    report = world.turns()
    assert world.predictions() == [b"0/0", b"0/1"]
    assert (world.journal("chunk"), world.committed()[P], report.uncommitted_rows) == ([], 0, 2)
    world.clock.advance(0.2)
    report = world.turns()
    assert world.predictions() == [b"0/0", b"0/1"]
    assert (len(world.journal("chunk")), world.committed()[P], report.uncommitted_rows) == (1, 2, 0)


def test_predictions_leave_while_a_commit_is_out() -> None:
    """They do not wait for it, and it does not answer for them."""
    background = ManualBackground()
    world = World(exactly_once=False, background=background)
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    assert background.busy
    world.feed(P, b"b")
    world.turns(4)
    assert world.predictions() == [b"0/0", b"0/1"]
    background.finish()
    world.turns(1)
    assert world.committed()[P] == 1


def test_predictions_gather_while_earlier_ones_are_on_their_way() -> None:
    """They leave once those have arrived, and no commit answers for either before."""
    world = World(exactly_once=False)
    world.arrived = False
    world.feed(P, b"a", b"b")
    world.turns()
    world.feed(P, b"c")
    world.turns(8, seconds=0.2)
    assert (world.predictions(), world.committed()[P]) == ([], 0)
    world.arrived = True
    world.turns(1)
    assert (world.predictions(), world.committed()[P]) == ([b"0/0", b"0/1"], 2)
    world.turns(8, seconds=0.2)
    assert (world.predictions(), world.committed()[P]) == ([b"0/0", b"0/1", b"0/2"], 3)


def test_a_prediction_that_was_lost_ends_the_feeder() -> None:
    """Its offset is not committed, so that a successor makes it again."""

    def lossy(effect: str, side: str) -> None:
        if (effect, side) == ("append", "before"):
            raise Retriable("lost")

    world = World(exactly_once=False)
    world.feed(P, b"a")
    world.log._hook = lossy
    with pytest.raises(Retriable, match="lost"):
        world.turns()
    assert world.committed()[P] == 0


def test_many_rows_are_committed_before_the_interval() -> None:
    """`commit.max_rows` makes a commit due at once."""
    world = World(commit=CommitPolicy(interval_ms=60_000, max_rows=6, max_bytes=1 << 20))
    world.feed(P, *[b"v"] * 5)
    world.turns()
    assert world.predictions() == []
    world.feed(P, b"v")
    world.turns()
    assert len(world.predictions()) == 6


def test_after_a_long_commit_two_intervals_pass() -> None:
    """A busy broker gets fewer commits than the interval asks for, and with more in each."""
    background = ManualBackground()
    world = World(background=background)
    world.feed(P, b"a")
    world.turns(4, seconds=0.1)
    assert background.busy
    world.clock.advance(0.1)
    world.feed(P, b"b")
    world.turns(2, seconds=0.01)
    background.finish()
    world.turns(1, seconds=0.1)
    assert (background.busy, world.committed()[P]) == (False, 1), "one interval has passed"
    world.turns(2, seconds=0.1)
    assert background.busy


def test_many_bytes_are_committed_before_the_interval() -> None:
    """`commit.max_bytes` makes a commit due at once."""
    world = World(commit=CommitPolicy(interval_ms=60_000, max_rows=1000, max_bytes=1000))
    world.feed(P, *[b"v" * 300] * 5)
    world.turns()
    assert len(world.predictions()) >= 4


def test_polling_stops_at_twice_a_commit() -> None:
    """While a commit hangs at most two commits' rows and one batch are held; then it goes on."""
    clock = ManualClock()
    background = ManualBackground(clock.advance)
    world = World(
        commit=CommitPolicy(interval_ms=1, max_rows=10, max_bytes=1 << 20),
        background=background,
        clock=clock,
    )
    world.feed(P, *[b"v"] * 100)
    report = world.turns(60, seconds=0.002)
    assert background.busy
    assert 20 <= report.uncommitted_rows <= 24
    assert report.waiting_on is WaitingOn.SINK
    for _ in range(100):
        background.finish()
        report = world.turns(1, seconds=0.002)
    assert len(world.predictions()) == 100
    assert report.uncommitted_rows == 0


def test_only_one_commit_runs_and_the_loop_goes_on() -> None:
    """While a commit is out records are polled and scored, and no second one begins."""
    background = ManualBackground()
    world = World(background=background)
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    assert background.busy
    world.feed(P, b"b")
    report = world.turns(4, seconds=0.2)
    assert (report.commits, report.uncommitted_rows) == (0, 2)
    background.finish()
    world.turns(2)
    background.finish()
    assert world.turns(1).commits == 2
    assert world.predictions() == [b"0/0", b"0/1"]


def test_draining_commits_and_rolls_everything() -> None:
    """What was polled is scored, committed and closed by a roll record with its positions."""
    world = World()
    world.feed(P, b"a", b"bad", b"c")
    world.feed(Q, b"d")
    world.turns(2)
    report = world.drain()
    assert (report.records_in, report.records_out) == (4, 3)
    assert report.dead == {"decode:Bad": 1}
    assert world.committed() == {P: 3, Q: 1}
    last = journal.read_roll(world.journal("roll")[-1])
    assert (last.reason, last.positions) == ("drain", {"0": 3, "1": 1})
    assert report.uncommitted_rows == 0
    assert {p.partition: p.committed for p in report.partitions} == {P: 3, Q: 1}


def test_draining_twice_writes_nothing_more() -> None:
    """A turn that the driver had queued already finds everything done."""
    world = World()
    world.feed(P, b"a")
    world.turns(2)
    world.drain()
    rolls = len(world.journal("roll"))
    assert world.drain().drained
    assert len(world.journal("roll")) == rolls


def test_a_roll_comes_at_its_interval_also_when_idle() -> None:
    """Rows become visible in Parquet though no record follows them."""
    world = World(roll=Roll(interval_seconds=5.0))
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    assert world.journal("roll") == []
    world.clock.advance(5.0)
    world.turns(4)
    (value,) = world.journal("roll")
    assert journal.read_roll(value).reason == "interval"


def test_a_roll_comes_at_its_size() -> None:
    """`roll.max_bytes` closes the file in the commit that reaches it."""
    world = World(roll=Roll(interval_seconds=60.0, max_bytes=10))
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    (value,) = world.journal("roll")
    assert journal.read_roll(value).reason == "size"


def test_a_changed_date_rolls_first() -> None:
    """Rows of two days never share a file: the boundary stands before the new day's rows."""
    world = World(roll=Roll(interval_seconds=86_400.0))
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    world.clock.advance(86_400.0 - 10)
    world.feed(P, b"b")
    world.turns(4, seconds=0.2)
    records = world.log.records("journal", 0)
    kinds = [journal.read_key(r.key or b"").kind for r in records]
    assert kinds == ["chunk", "commit", "roll", "chunk", "commit"]
    dates = [journal.read_commit(value).date for value in world.journal("commit")]
    first = datetime.datetime.fromtimestamp(world.clock.time(), datetime.UTC).date()
    assert dates == [(first - datetime.timedelta(days=1)).isoformat(), first.isoformat()]
    assert journal.read_roll(records[2].value or b"").positions["0"] == 1


def test_too_many_dead_letters_stop_the_feeder_for_good() -> None:
    """Nothing of the bad window is committed, also not by a turn that was queued before."""
    world = World(dead=DeadLetters("dead", 0.5, 4), batch_rows=4)
    world.feed(P, *[b"good"] * 4)
    world.turns(6, seconds=0.2)
    world.feed(P, b"bad", b"bad", b"bad", b"good")
    with pytest.raises(TooManyDeadLetters, match="3 of the last 4 records of in in slot 0"):
        world.turns(6)
    world.clock.advance(10.0)
    for _ in range(3):
        with pytest.raises(Retriable, match="failed in an earlier turn"):
            world.feeder.turn(world.orders)
    assert world.committed()[P] == 4
    assert world.log.records("dead", 0) == []


def test_some_dead_letters_do_not_stop_it() -> None:
    """Below the share, or before a whole window was seen, they are committed like the rest."""
    world = World(dead=DeadLetters("dead", 0.5, 100))
    world.feed(P, b"bad", b"bad", b"good")
    report = world.turns(6, seconds=0.2)
    assert report.dead == {"decode:Bad": 2}
    assert [record.value for record in world.log.records("dead", 0)] == [b"bad", b"bad"]


def test_an_error_of_the_commit_is_raised_at_the_next_turn_and_ends_the_feeder() -> None:
    """A fenced feeder never writes again: each later turn says that a successor goes on."""
    world = World()
    world.feed(P, b"a")
    world.turns(2)
    world.sink().claim(Assignment(0, world.layout, (P, Q), 2), lambda _: [])
    world.clock.advance(0.2)
    with pytest.raises(Fenced):
        world.turns(3)
    for _ in range(3):
        with pytest.raises(Retriable, match="failed in an earlier turn"):
            world.feeder.turn(world.orders)
    assert world.predictions() == []
    assert world.committed()[P] == 0


class _Failing(MemorySource):
    """Loses records with an error once, as a client may that had taken them from its queue."""

    failures = 1

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        found = super().poll(max_records, timeout, fill=fill)
        if len(found.offsets) and type(self).failures:
            type(self).failures -= 1
            raise Retriable("the broker went away")
        return found


def test_a_feeder_that_failed_once_never_commits_again() -> None:
    """Records that went with an error are not passed over by a turn that was queued before."""
    _Failing.failures = 1
    world = World(source=_Failing)
    world.feed(P, b"a", b"b")
    with pytest.raises(Retriable, match="the broker went away"):
        world.turns(3)
    world.feed(P, b"c", b"d")
    world.clock.advance(1.0)
    for _ in range(8):
        with pytest.raises(Retriable, match="failed in an earlier turn"):
            world.feeder.turn(world.orders)
        world.clock.advance(0.5)
    assert world.committed()[P] == 0


def test_ends_of_idle_partitions_move_positions() -> None:
    """Markers and aborted records at an end are passed, with a commit a second later."""
    world = World()
    epoch = world.log.init("other")
    transaction = world.log.begin("other", epoch)
    world.log.append(Q, None, b"never", transaction=transaction)
    world.log.abort(transaction)
    world.turns(4)
    assert world.committed()[Q] == 0
    world.clock.advance(1.0)
    world.turns(4)
    assert world.committed() == {P: 0, Q: 2}
    assert world.predictions(1) == []


@pytest.mark.parametrize("quiet_seconds", [0.1, 2.0])
def test_commit_records_leave_no_offset_out(quiet_seconds: float) -> None:
    """Spans of commit records continue each other, also over offsets that held no record.

    Else the archiver takes what follows for a zombie's and drops it.
    """
    world = World()
    epoch = world.log.init("other")
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    for value in (b"b", b"c"):
        transaction = world.log.begin("other", epoch)
        world.log.append(P, None, b"never", transaction=transaction)
        world.log.abort(transaction)
        world.turns(3, seconds=quiet_seconds)
        world.feed(P, value)
        world.turns(4, seconds=0.2)
    world.drain()
    assert len(world.predictions()) == 3
    spans = [span for value in world.journal("commit") for span in journal.read_commit(value).spans]
    edges = [edge for number, *span in spans for edge in span if number == 0]
    assert (edges[0], edges[-1]) == (0, 7)
    assert edges[1:-1:2] == edges[2::2]


def test_idle_offsets_are_kept_alive() -> None:
    """They are committed again within the hour, so that they never expire while it runs."""
    world = World()
    world.turns(3)
    before = world.log.committed(GROUP, (P,))
    world.clock.advance(3600.0)
    world.turns(2)
    after = world.log.committed(GROUP, (P,))
    assert before[P].offset == after[P].offset
    assert before[P].metadata != after[P].metadata


def test_suspect_rows_are_scored_in_isolation() -> None:
    """What a predecessor died over goes to the isolation replica alone, the rest to the fleet."""
    world = World(suspect_rows=4, batch_rows=4)
    world.feed(P, *[b"v"] * 8)
    assert world.turns(3).needs_isolation
    world.orders = Orders(0.0, (REPLICA,), ReplicaRef(9, None))
    report = world.turns(8, seconds=0.1)
    assert [number for number, _ in world.replicas.sent] == [0, 9]
    assert not report.needs_isolation
    assert len(world.predictions()) == 8


def test_a_loss_ends_the_turn_and_is_reported_once() -> None:
    """The driver hears of a dead replica at once, and its batch is scored by the next one."""
    world = World()
    world.feed(P, b"a")
    world.turns(1)
    world.replicas.die(0)
    world.orders = Orders(100.0, (REPLICA,))
    report = world.feeder.turn(world.orders)
    assert report.lost == ((0, "died: it was dead already"),) or report.lost[0][0] == 0
    world.orders = Orders(0.0, (ReplicaRef(1, None),))
    report = world.turns(6, seconds=0.2)
    assert report.lost == ()
    assert world.predictions() == [b"0/0"]


def test_the_oldest_record_counts_from_the_poll() -> None:
    """Time lag is seen also while no replica takes what was polled."""
    world = World()
    world.clock.advance(1.0)
    world.feed(P, b"a")
    stamp = world.log.records("in", 0)[0].timestamp
    world.orders = Orders(0.0, ())
    report = world.turns(4)
    assert report.partitions[0].oldest == stamp
    assert report.partitions[0].position == 1


def test_the_report_says_where_each_partition_stands() -> None:
    """Offsets are next offsets; what is committed is never ahead of what is done."""
    background = ManualBackground()
    world = World(background=background)
    world.feed(P, b"a", b"b")
    world.turns(4, seconds=0.2)
    (p, q) = world.turns(1).partitions
    assert (p.start, p.position, p.done, p.committed) == (0, 2, 2, 0)
    assert (q.start, q.position, q.done, q.committed, q.oldest) == (0, 0, 0, 0, None)
    assert p.oldest is not None
    background.finish()
    (p, _) = world.turns(1).partitions
    assert (p.committed, p.oldest) == (2, None)


def test_records_that_are_due_wait_for_replicas_also_where_they_fill_no_batch() -> None:
    """One record and no replica is a reason to start one."""

    def wait(seconds: float) -> None:
        world.clock.advance(seconds)

    world = World(batch_rows=1000, source=lambda log, topic: MemorySource(log, topic, wait))
    world.feed(P, b"a")
    world.orders = Orders(0.0, ())
    assert world.turns(4).waiting_on is WaitingOn.REPLICAS


def test_it_waits_on_replicas_only_where_records_wait_for_them() -> None:
    """Without records it waits for those; with a full batch and no replica, for replicas."""
    world = World(batch_rows=2)
    world.orders = Orders(0.0, ())
    world.turns(2)
    world.feed(P, b"a", b"b", b"c")
    assert world.turns(3).waiting_on is not WaitingOn.SINK


def test_a_successor_goes_on_where_the_commit_stands() -> None:
    """What was not committed is scored again by the next feeder, and stands there once."""
    world = World()
    world.feed(P, b"a")
    world.turns(4, seconds=0.2)
    world.feed(P, b"b")
    world.turns(2)
    world.feeder = world.start()
    world.turns(6, seconds=0.2)
    assert world.predictions() == [b"0/0", b"0/1"]


def test_closing_waits_for_the_commit() -> None:
    """A commit that is out is finished, and its error is not raised any more."""
    world = World()
    world.feed(P, b"a")
    world.turns(2)
    world.sink().claim(Assignment(0, world.layout, (P, Q), 2), lambda _: [])
    world.clock.advance(0.2)
    world.feeder.turn(Orders(0.0, (REPLICA,)))
    world.feeder.close()


class _Counting:
    """Real time, and how often it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def monotonic(self) -> float:
        self.asked += 1
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _Waiting(MemorySource):
    """Waits for records in real time, as a client does."""

    def __init__(self, log: MemoryLog, topic: str) -> None:
        super().__init__(log, topic, time.sleep)


@pytest.mark.parametrize(("suspect_rows", "rows"), [(0, 8), (4, 8), (400, 400)])
def test_it_does_not_spin_while_it_waits_for_replicas(suspect_rows: int, rows: int) -> None:
    """A feeder without a replica leaves the processor to those that start, its hands full or not.

    Without any, with suspects alone without theirs, and with as many as it may hold.
    """
    world = World(suspect_rows=suspect_rows, batch_rows=2, source=_Waiting)
    clock = _Counting()
    world.feeder._clock = clock
    world.feed(P, *[b"v"] * rows)
    replicas = (REPLICA,) if suspect_rows else ()
    world.feeder.turn(Orders(0.2, replicas))
    clock.asked = 0
    world.feeder.turn(Orders(0.2, replicas))
    assert clock.asked < 2000


def slowly(clock: ManualClock) -> Callable[[Batch], Scored]:
    """Score as ever, in a time that the clock sees."""

    def scoring(batch: Batch) -> Scored:
        clock.advance(0.01)
        return score(batch)

    return scoring


@pytest.mark.parametrize(
    ("replica", "waiting_on"),
    [(REPLICA, WaitingOn.REPLICAS), (ReplicaRef(1, "an actor"), WaitingOn.RECORDS)],
)
def test_a_backlog_waits_for_replicas_where_the_feeder_scores_it(
    replica: ReplicaRef, waiting_on: WaitingOn
) -> None:
    """Its own scoring keeps it from polling; beside an actor with room, records are on their way."""
    clock = ManualClock()
    world = World(clock=clock, scoring=slowly(clock))
    world.orders = Orders(0.0, (replica,))
    world.feed(P, *[b"v"] * 20)
    world.turns(1)
    assert [world.turns(1).waiting_on for _ in range(4)] == [waiting_on] * 4


def test_records_that_fill_no_batch_do_not_wait_for_the_feeder_that_scores_them() -> None:
    """It scores whatever is there and comes back for more: that is no backlog."""
    clock = ManualClock()
    world = World(clock=clock, scoring=slowly(clock))
    for _ in range(5):
        world.feed(P, b"a", b"b")
        assert world.turns(1).waiting_on is WaitingOn.RECORDS
