"""What the stream asks for: arrivals, backlog and time lag, from offsets seen now and before.

Only healthy partitions count. One whose records were polled and do not settle while others' do is
stuck on a record that kills, or on a feeder that is lost: replicas cannot help it.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from pipeline.control import WaitingOn

# Longer than a batch that is sent twice and then split; see `pipeline.dispatch`.
STUCK_SECONDS = 30.0
# Without offsets for so long nothing is known of the arrivals between.
GAP_SECONDS = 30.0
# Two looks that are closer than a clock can tell say nothing of a rate.
CLOCK_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Offsets:
    """One partition: next offsets of the log, of what was polled, settled and committed.

    `start` is where the present feeder began; `waiting_on` is what its slot's records wait for.
    """

    start: int
    end: int
    position: int
    done: int
    committed: int
    waiting_on: WaitingOn


@dataclass(frozen=True, slots=True)
class Seen:
    """One partition at the last look; `moved` is when its settled prefix last grew or reset."""

    end: int
    done: int
    moved: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Records of healthy partitions that had arrived and settled by `at`, since the first look.

    `forecast` is the rate of arrivals that was expected then, records per second.
    """

    at: float
    arrived: float
    settled: float
    forecast: float = 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known of the stream. `samples` reach back over the window asked for, oldest first.

    `backlog` counts records that are not settled, `waiting` those of them that wait for replicas
    and `blocked` those that wait for a sink; stuck partitions are in none of them.
    """

    samples: tuple[Sample, ...] = ()
    seen: Mapping[int, Seen] = field(default_factory=dict)
    stuck: tuple[int, ...] = ()
    backlog: float = 0.0
    waiting: float = 0.0
    blocked: float = 0.0

    def observed(self, seconds: float) -> float:
        """Seconds of the last `seconds` that samples cover; 0 where no clock could tell them."""
        span = self.samples[-1].at - self.samples[0].at if self.samples else 0.0
        return min(seconds, span) if span >= CLOCK_SECONDS else 0.0

    def arrived_in(self, seconds: float) -> float:
        """Records that arrived in the last `seconds`."""
        return self.samples[-1].arrived - self.before(seconds).arrived

    def rate(self, seconds: float) -> float:
        """Arrivals per second over the last `seconds`, or as much of it as was observed."""
        covered = self.observed(seconds)
        return self.arrived_in(seconds) / covered if covered > 0 else 0.0

    def throughput(self, seconds: float) -> float:
        """Records settled per second over the last `seconds`, or as much as was observed."""
        covered = self.observed(seconds)
        if covered <= 0:
            return 0.0
        return (self.samples[-1].settled - self.before(seconds).settled) / covered

    def before(self, seconds: float) -> Sample:
        """How it was `seconds` ago, between samples by a straight line."""
        samples = self.samples
        when = samples[-1].at - seconds
        after = bisect_right(samples, when, key=attrgetter("at"))
        if after == 0:
            return samples[0]
        if after == len(samples):
            return samples[-1]
        low, high = samples[after - 1], samples[after]
        share = (when - low.at) / (high.at - low.at)
        return Sample(
            when,
            low.arrived + share * (high.arrived - low.arrived),
            low.settled + share * (high.settled - low.settled),
            low.forecast,
        )

    def overdue(self, seconds: float) -> float:
        """Records that wait for replicas and have been there for more than `seconds`."""
        return max(0.0, self.waiting - self.arrived_in(seconds))

    def time_lag(self) -> float:
        """Age in seconds of the oldest record that is not settled; at most what was observed."""
        if self.backlog <= 0 or not self.samples:
            return 0.0
        newest = self.samples[-1]
        settled = newest.arrived - self.backlog
        after = bisect_right(self.samples, settled, key=attrgetter("arrived"))
        if after == 0:
            return newest.at - self.samples[0].at
        if after == len(self.samples):
            return 0.0
        low, high = self.samples[after - 1], self.samples[after]
        share = (settled - low.arrived) / (high.arrived - low.arrived)
        return newest.at - (low.at + share * (high.at - low.at))


def observe(
    known: Demand, at: float, offsets: Mapping[int, Offsets], window: float, patience: float
) -> Demand:
    """Take a look at the offsets in; samples older than `window` seconds are dropped.

    `at` is in seconds of a monotonic clock: where it goes back, or too far ahead, the samples
    begin anew. A partition may stand for `patience` seconds before it counts as stuck.
    """
    samples = known.samples
    if samples and not 0 <= at - samples[-1].at <= GAP_SECONDS:
        samples = ()
    seen: dict[int, Seen] = {}
    arrived, settled = (samples[-1].arrived, samples[-1].settled) if samples else (0.0, 0.0)
    moving = False
    for number, now in offsets.items():
        old = known.seen.get(number)
        if old is None or now.done != old.done or now.done >= now.position or not samples:
            moving = moving or (old is not None and now.done > old.done)
            seen[number] = Seen(now.end, now.done, at)
        else:
            seen[number] = Seen(now.end, now.done, old.moved)
    # While all stand still, what holds them is no single record.
    allowed = max(patience, STUCK_SECONDS)
    idle = [number for number, one in seen.items() if at - one.moved > allowed]
    stuck = tuple(idle) if moving or set(idle) <= set(known.stuck) else known.stuck
    backlog = waiting = blocked = 0.0
    for number, now in offsets.items():
        if number in stuck:
            continue
        old = known.seen.get(number)
        if old is not None and samples:
            # After a reset the difference is no arrival.
            arrived += max(0, now.end - old.end)
            settled += max(0, now.done - old.done)
        open_records = max(0, now.end - now.done)
        backlog += open_records
        if now.waiting_on is WaitingOn.REPLICAS:
            waiting += open_records
        elif now.waiting_on is WaitingOn.SINK:
            blocked += open_records
    samples = tuple(s for s in samples if s.at > at - window - GAP_SECONDS and s.at < at)
    return Demand((*samples, Sample(at, arrived, settled)), seen, stuck, backlog, waiting, blocked)


def expecting(demand: Demand, rate: float) -> Demand:
    """Note the rate that is expected from now on in the newest sample."""
    *older, newest = demand.samples
    return replace(demand, samples=(*older, replace(newest, forecast=rate)))
