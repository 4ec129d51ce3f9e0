"""The decision: it follows the lag, says why, and is not fooled."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.capacity import Moments, ServiceTime, size_class
from pipeline.control import WaitingOn
from pipeline.demand import Offsets
from pipeline.outlook import Policy, Signals
from pipeline.scale import CEILING_SECONDS, Decision, Memory, decide

SERVICE = ServiceTime(0.08, 0.0075)
BATCH = 32
# Records per second of a replica with full batches.
RATE = SERVICE.rate(BATCH)
TICK = 5.0
POLICY = Policy(1, 40, 60.0, BATCH, 1.0)


@dataclass
class Stream:
    """A stream in ticks of five seconds, whose replicas start after `cold` seconds.

    `shares` are of the arrivals by partition; those in `stuck` do not settle. `most` bounds what is
    settled per second however many replicas there are; a batch takes `overhead` times as long as its
    timing says. `watch` may change the signals.
    """

    policy: Policy = POLICY
    partitions: int = 4
    cold: float = 20.0
    ready: int = 1
    shares: tuple[float, ...] = ()
    stuck: set[int] = field(default_factory=set)
    most: float = float("inf")
    overhead: float = 1.0
    service: ServiceTime = SERVICE
    version: str = "1"
    waits: WaitingOn = WaitingOn.REPLICAS
    watch: Callable[[Signals], Signals] = lambda signals: signals
    now: float = 0.0
    memory: Memory = field(default_factory=Memory)
    starting: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shares = self.shares or (1 / self.partitions,) * self.partitions
        self.ends = [0.0] * self.partitions
        self.done = [0.0] * self.partitions

    def run(self, seconds: float, rate: float) -> Decision:
        """Let `rate` records per second arrive for so long; returns the last decision."""
        for _ in range(int(seconds / TICK)):
            self._tick(rate)
        return self.decisions[-1]

    def _tick(self, rate: float) -> None:
        self.now += TICK
        ready = [at for at in self.starting if self.now - at >= self.cold]
        self.starting = [at for at in self.starting if self.now - at < self.cold]
        self.ready += len(ready)
        for number, share in enumerate(self.shares):
            self.ends[number] += rate * TICK * share
        working = self.ready + self.policy.standing
        capacity = min(working * self.service.rate(BATCH) / self.overhead, self.most) * TICK
        open_records = {
            p: self.ends[p] - self.done[p] for p in range(self.partitions) if p not in self.stuck
        }
        total = sum(open_records.values())
        settled = min(total, capacity)
        for number, count in open_records.items():
            self.done[number] += settled * count / total if total else 0.0
        each = settled / TICK / max(working, 1) * self.overhead
        spare = 1 - self.service.per_row * each
        batch = min(max(self.service.fixed * each / spare, 1.0), BATCH) if spare > 0 else BATCH
        scored = {}
        if settled:
            seconds = self.service.seconds(batch)
            scored[size_class(batch)] = Moments.of(batch, seconds, settled / batch)
        waiting_on = self.waits if total - settled > 1 else WaitingOn.RECORDS
        signals = Signals(
            at=self.now,
            partitions={p: self._offsets(p, waiting_on) for p in range(self.partitions)},
            ready=self.ready,
            starting=tuple(self.now - at for at in self.starting),
            scored=scored,
            cold_starts=(self.cold,) * len(ready),
            model_version=self.version,
        )
        decision, self.memory = decide(self.watch(signals), self.memory, self.policy)
        self.decisions.append(decision)
        for _ in range(decision.replicas - self.ready - len(self.starting)):
            self.starting.append(self.now)
        for _ in range(self.ready + len(self.starting) - decision.replicas):
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1

    def _offsets(self, number: int, waiting_on: WaitingOn) -> Offsets:
        end, done = int(self.ends[number]), int(self.done[number])
        return Offsets(0, end, min(end, done + 100), done, done, waiting_on)

    @property
    def lag(self) -> float:
        """Time lag as the decision sees it, in seconds."""
        return self.memory.learned.demand.time_lag()

    @property
    def most_ordered(self) -> int:
        return max(decision.replicas for decision in self.decisions)


def reasons(stream: Stream) -> str:
    return "\n".join(decision.reason for decision in stream.decisions)


def test_replicas_follow_the_demand_up_and_down() -> None:
    """As many as the rate needs, within the allowed lag; given back when it is over."""
    stream = Stream()
    stream.run(120, 50)
    stream.run(300, 10 * RATE)
    assert 10 <= stream.ready <= 13
    assert stream.lag < POLICY.max_time_lag
    stream.run(600, 50)
    assert stream.ready == 1
    assert "up from 1 to" in reasons(stream)
    assert "down from" in reasons(stream)


def test_replicas_on_their_way_are_counted() -> None:
    """While a cold start lasts, the same backlog makes no second order."""
    stream = Stream(cold=30.0)
    stream.run(120, 50)
    stream.run(30, 5 * RATE)
    ordered = stream.decisions[-1].replicas
    assert ordered > 1
    stream.run(15, 5 * RATE)
    assert stream.decisions[-1].replicas == ordered


def test_replicas_are_kept_for_the_next_surge_and_ever_fewer_as_it_does_not_come() -> None:
    """Where cold starts are longer than the allowed lag; after two hours none is kept."""
    stream = Stream(cold=90.0, ready=3)
    stream.watch = lambda signals: replace(signals, cold_starts=(90.0,))
    stream.run(300, 50)
    stream.run(600, 8 * RATE)
    kept = []
    for _ in range(3):
        stream.run(2700, 50)
        kept.append(stream.ready)
    assert kept[0] > kept[1] > kept[2] == POLICY.min_replicas


def test_batches_grow_before_replicas_do() -> None:
    """What larger batches can do makes no order; the batch size says so."""
    stream = Stream()
    small = stream.run(120, 5)
    large = stream.run(300, 0.9 * RATE)
    assert small.batch_size < large.batch_size == BATCH
    assert stream.most_ordered == 1


def test_a_poisoned_partition_buys_no_replicas() -> None:
    """Its lag grows without end, the others' need is met, and the reason names it."""
    stream = Stream(partitions=64)
    stream.run(120, 2.5 * RATE)
    before = stream.most_ordered
    stream.stuck = {7}
    last = stream.run(1800, 2.5 * RATE)
    assert stream.most_ordered <= before + 1
    assert "partition 7, which stands still" in last.reason


def test_a_slow_sink_buys_no_replicas() -> None:
    """Records that wait for their commit would wait for it with more replicas too."""
    stream = Stream(ready=3, most=150.0, waits=WaitingOn.SINK)
    last = stream.run(600, 2.5 * RATE)
    assert stream.most_ordered == 3
    assert "wait for the sink" in last.reason


def test_a_dead_broker_buys_no_replicas() -> None:
    """Without offsets the number is held, and when records do not come it is too."""
    stream = Stream(ready=3)
    stream.run(120, 2 * RATE)
    have = stream.ready
    stream.watch = lambda signals: replace(signals, partitions={})
    assert stream.run(300, 2 * RATE).replicas == have
    assert "offsets are not known" in stream.decisions[-1].reason

    fetches_nothing = Stream(ready=3, most=0.0, waits=WaitingOn.RECORDS)
    fetches_nothing.most = float("inf")
    fetches_nothing.run(60, 2 * RATE)
    fetches_nothing.most = 0.0
    last = fetches_nothing.run(600, 2 * RATE)
    assert fetches_nothing.most_ordered == 3
    assert "neither settle nor wait" in last.reason


def test_an_ineffective_scale_up_is_undone_and_said() -> None:
    """Where more replicas bring nothing they go again, and are not tried again for a while."""
    stream = Stream(ready=2, most=2 * RATE)
    stream.run(120, 1.5 * RATE)
    stream.run(400, 4 * RATE)
    assert "the last scale-up promised" in reasons(stream)
    undone = next(i for i, d in enumerate(stream.decisions) if "promised" in d.reason)
    assert stream.decisions[undone].replicas == 2
    after = [d.replicas for d in stream.decisions[undone:]]
    assert set(after[: int(CEILING_SECONDS / TICK)]) == {2}
    assert "more did not help lately" in stream.decisions[-1].reason


def test_a_gap_in_the_metrics_holds() -> None:
    """Neither the gap nor what follows it at once changes the number."""
    stream = Stream(ready=5)
    stream.run(300, 4.5 * RATE)
    have = stream.ready
    stream.watch = lambda signals: replace(signals, partitions={})
    stream.run(60, 4.5 * RATE)
    stream.watch = lambda signals: signals
    stream.run(120, 4.5 * RATE)
    assert {d.replicas for d in stream.decisions[-36:]} == {have}


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_clock_holds(step: float) -> None:
    """A clock that jumps makes neither an order nor a removal."""
    stream = Stream(ready=5)
    stream.run(300, 4.5 * RATE)
    have = stream.ready
    stream.now += step
    stream.run(120, 4.5 * RATE)
    assert {d.replicas for d in stream.decisions[-24:]} == {have}


def test_a_reset_of_the_offsets_is_no_demand() -> None:
    """A topic that was made again, or positions that were moved to its end, ask for nothing."""
    stream = Stream(ready=3)
    stream.run(300, 2.5 * RATE)
    have = stream.ready
    stream.ends = [0.0] * 4
    stream.done = [0.0] * 4
    stream.run(60, 2.5 * RATE)
    stream.done = list(stream.ends)
    stream.run(10, 2.5 * RATE)
    assert {d.replicas for d in stream.decisions[-14:]} == {have}


def test_an_idle_topic_keeps_the_least_and_changes_nothing() -> None:
    """No records, no decisions but to hold."""
    stream = Stream(ready=4)
    stream.run(30, 50)
    stream.run(900, 0)
    assert stream.ready == POLICY.min_replicas
    assert {d.replicas for d in stream.decisions[-120:]} == {POLICY.min_replicas}
    assert "min_replicas = 1" in stream.decisions[-1].reason


def test_a_skewed_key_is_demand_like_any_other() -> None:
    """One partition with nine tenths of the stream takes as many replicas as an even stream."""
    even = Stream()
    skewed = Stream(shares=(0.9, 0.04, 0.03, 0.03))
    for stream in (even, skewed):
        stream.run(120, 50)
        stream.run(600, 6 * RATE)
    assert even.ready == skewed.ready


def test_a_restart_in_the_middle_of_a_burst_goes_on_upwards() -> None:
    """A new driver without memory sees the backlog and orders, before it knows any rate."""
    stream = Stream(ready=2)
    stream.ends = [20_000.0] * 4
    stream.run(15, 5 * RATE)
    assert stream.decisions[-1].replicas > 5
    assert min(d.replicas for d in stream.decisions) >= 2
    stream.run(600, 5 * RATE)
    assert stream.lag < POLICY.max_time_lag


def test_a_slower_model_version_is_measured_anew() -> None:
    """What the old version took says nothing of the new one, which needs twice the replicas."""
    stream = Stream(ready=5)
    stream.run(300, 4 * RATE)
    stream.version, stream.service = "2", ServiceTime(0.16, 0.015)
    stream.run(600, 4 * RATE)
    assert 8 <= stream.ready <= 10


def test_scale_to_zero_is_refused_where_the_cold_start_is_too_long() -> None:
    """The last replica stays, and the reason says what stands against it."""
    stream = Stream(policy=replace(POLICY, min_replicas=0), cold=50.0, ready=3)
    stream.watch = lambda signals: replace(signals, cold_starts=(50.0,))
    stream.run(60, 50)
    last = stream.run(900, 0)
    assert stream.ready == 1
    assert "not to zero" in last.reason
    assert "max_time_lag = 60" in last.reason


def test_scale_to_zero_happens_where_the_cold_start_allows_it_and_wakes_at_once() -> None:
    """No replica for no records; a first record orders one."""
    stream = Stream(policy=replace(POLICY, min_replicas=0), cold=5.0)
    stream.watch = lambda signals: replace(signals, cold_starts=(5.0,))
    stream.run(60, 50)
    stream.run(300, 0)
    assert stream.ready == 0
    stream.run(5, 1)
    assert stream.decisions[-1].replicas >= 1
    stream.run(60, 1)
    assert stream.lag < 10.0


def test_what_feeders_score_themselves_counts_first() -> None:
    """Replicas are added for what exceeds the feeders' own, and given back when it no longer does."""
    policy = replace(POLICY, min_replicas=0, standing=4)
    stream = Stream(policy=policy, ready=0)
    stream.run(300, 3.5 * RATE)
    assert stream.most_ordered == 0
    stream.run(300, 7 * RATE)
    assert 3 <= stream.ready <= 5
    stream.run(600, 3 * RATE)
    assert stream.ready == 0


def test_the_most_replicas_are_never_passed_and_the_reason_says_so() -> None:
    """A demand beyond all that is allowed is held at it."""
    stream = Stream(policy=replace(POLICY, max_replicas=3))
    last = stream.run(600, 10 * RATE)
    assert stream.most_ordered == 3
    assert "max_replicas = 3" in last.reason


waits = st.sampled_from(WaitingOn)
jumps = st.floats(-100.0, 4000.0)


@st.composite
def signals(draw: st.DrawFn) -> Signals:
    """Anything at all, sense or nonsense."""
    offsets = st.builds(
        Offsets,
        start=st.just(0),
        end=st.integers(0, 10**9),
        position=st.integers(0, 10**9),
        done=st.integers(0, 10**9),
        committed=st.integers(0, 10**9),
        waiting_on=waits,
    )
    size = draw(st.floats(1, BATCH))
    seconds = draw(st.just(0.0) | st.floats(1e-6, 10.0))
    return Signals(
        at=draw(jumps),
        partitions=draw(st.dictionaries(st.integers(0, 3), offsets, max_size=4)),
        ready=draw(st.integers(0, 50)),
        starting=tuple(draw(st.lists(st.floats(0, 1000), max_size=5))),
        scored=draw(st.sampled_from([{}, {size_class(size): Moments.of(size, seconds)}])),
        cold_starts=tuple(draw(st.lists(st.floats(0, 500), max_size=3))),
        model_version=draw(st.sampled_from("12")),
    )


@settings(deadline=None)
@given(
    run=st.lists(signals(), min_size=1, max_size=30),
    least=st.integers(0, 3),
    standing=st.integers(0, 2),
    lag=st.floats(1.0, 600.0),
)
def test_whatever_is_measured_the_order_is_one_that_the_user_allows(
    run: list[Signals], least: int, standing: int, lag: float
) -> None:
    """Within the bounds where anything is known, with a reason, and a pure function of its input."""
    policy = Policy(least, 20, lag, BATCH, 0.2, standing)
    memory = Memory()
    for one in run:
        decision, following = decide(one, memory, policy)
        assert (decision, following) == decide(one, memory, policy)
        memory = following
        have = one.ready + len(one.starting)
        assert min(have, least) <= decision.replicas <= max(20, have)
        if one.partitions and memory.learned.service:
            assert least <= decision.replicas <= 20
        assert 1 <= decision.batch_size <= BATCH
        assert decision.reason


def test_replicas_that_score_less_than_their_batches_say_are_counted_as_they_are() -> None:
    """What is lost on the way to a replica and back shows once records wait, and is made up for."""
    stream = Stream(overhead=2.0)
    stream.run(120, 50)
    stream.run(1200, 4 * RATE)
    assert 8 <= stream.ready <= 10
    assert stream.lag < POLICY.max_time_lag


@settings(deadline=None, max_examples=20)
@given(rate=st.floats(0.5, 25.0), cold=st.floats(1.0, 40.0), partitions=st.integers(1, 16))
@example(rate=3.125, cold=1.0, partitions=1)
def test_a_steady_demand_comes_to_rest_within_the_allowed_lag(
    rate: float, cold: float, partitions: int
) -> None:
    """Whatever the rate, the lag stays allowed in the end, and the last ten minutes change little."""
    stream = Stream(partitions=partitions, cold=cold)
    stream.run(60, 50)
    stream.run(1200, rate * RATE)
    assert stream.lag < POLICY.max_time_lag
    last = [d.replicas for d in stream.decisions[-120:]]
    # What is slowly left behind takes one more than the rate does, until it is caught up with.
    assert max(last) - min(last) <= 2 + 0.1 * rate
    assert stream.ready <= 1.15 * rate + 2
