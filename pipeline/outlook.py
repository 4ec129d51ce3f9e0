"""What lies ahead: how many records must be scored by when, and how many the replicas will score.

A record that arrived at t must be committed by t + lag. So what must be scored within a horizon is
known from the past where the horizon is shorter than the lag, and is a forecast beyond it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from pipeline.capacity import BySize, ServiceTime, fit, merged, quantile
from pipeline.demand import Demand, Offsets, expecting, observe

FAST_SECONDS = 10.0
SLOW_SECONDS = 60.0
# How long surges are remembered, and so how long replicas are kept for the next one: in the second
# half of it ever fewer.
SURGE_MEMORY_SECONDS = 7200.0
# From the first records of a surge to the order: two decisions and the delay of the fast rate.
REACTION_SECONDS = 15.0
# A replica that is late by the measured cold starts still takes about so much of them.
LATE_SHARE = 0.25
DEFAULT_COLD_START_SECONDS = 30.0
COLD_STARTS_KEPT = 20
COLD_START_QUANTILE = 0.9
STUCK_BATCHES = 4.0
# Records that have waited so long have kept every replica busy as long.
SATURATED_SECONDS = 30.0
LEAST_EFFICIENCY = 0.25
EFFICIENCY_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user cares about, and what the job's other settings fix.

    `max_time_lag` and `commit_seconds`, the interval of commits, are in seconds. `standing` are
    replicas that live in the feeders: they count first and cannot be taken away.
    """

    min_replicas: int
    max_replicas: int
    max_time_lag: float
    max_batch_size: int
    commit_seconds: float
    standing: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured since the last decision; `at` is in seconds of a monotonic clock.

    `partitions` is empty while the broker does not tell the offsets. `starting` are the ages in
    seconds of replicas that were ordered and are not ready; `cold_starts` the seconds that those
    took which became ready since.
    """

    at: float
    partitions: Mapping[int, Offsets]
    ready: int
    starting: tuple[float, ...] = ()
    scored: BySize = field(default_factory=dict)
    cold_starts: tuple[float, ...] = ()
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Demand and capacity from now on.

    `rate` is of arrivals and `service` of one replica, in records per second; `cold` are the
    seconds until a replica ordered now is ready, `surge` the records that a surge may bring until
    then beside those expected. `ready` counts the feeders' own replicas too.
    """

    demand: Demand
    rate: float
    surge: float
    service: float
    cold: float
    ready: int
    starting: tuple[float, ...]
    commit_seconds: float

    @property
    def have(self) -> int:
        """Replicas that are ready or ordered."""
        return self.ready + len(self.starting)

    def scored_by(self, horizon: float) -> float:
        """Records that these replicas score within `horizon` seconds."""
        on_time = (max(self.cold - age, LATE_SHARE * self.cold) for age in self.starting)
        coming = sum(max(0.0, horizon - wait) for wait in on_time)
        return self.service * (self.ready * horizon + coming)

    def due_by(self, horizon: float, lag: float) -> float:
        """Records to be scored within `horizon` seconds, so that none waits longer than `lag`."""
        allowed = max(lag - self.commit_seconds, 0.0)
        if horizon < allowed:
            return self.demand.overdue(allowed - horizon)
        return self.demand.waiting + self.rate * (horizon - allowed)

    def misses(self, horizons: tuple[float, ...], lag: float) -> bool:
        """Whether a date would be missed with these replicas."""
        return any(self.due_by(h, lag) > self.scored_by(h) + 1e-9 for h in horizons)

    def added(self, horizons: tuple[float, ...], lag: float) -> int:
        """Replicas to order beside those there are, so that every date is kept.

        The horizons must lie beyond the cold start.
        """
        missing = max(
            (self.due_by(h, lag) - self.scored_by(h)) / (self.service * (h - self.cold))
            for h in horizons
        )
        return max(0, ceil(missing - 1e-9))

    def enough(self, horizons: tuple[float, ...], lag: float) -> int:
        """Replicas that keep every date if they all work from now on."""
        return ceil(max(self.due_by(h, lag) / (self.service * h) for h in horizons) - 1e-9)

    def floor(self, lag: float) -> int:
        """Replicas that must be there so that a surge like those before can still be answered."""
        react = self.cold + REACTION_SECONDS
        due = self.due_by(react, lag) + self.surge
        return ceil(due / (self.service * react) - 1e-9)


@dataclass(frozen=True, slots=True)
class Learned:
    """What signals have taught so far.

    `scored` are batches of this model version by size. `surges` are (at, records) by which arrivals
    exceeded the forecast over the exposed time, `peaks` are (at, rate); of both only those are
    kept that are larger than all after them. `working` are the replicas that work, and since when
    it has been so many; `efficiency` is what they score of what the fit says.
    """

    demand: Demand = field(default_factory=Demand)
    scored: BySize = field(default_factory=dict)
    model_version: str = ""
    cold_starts: tuple[float, ...] = ()
    surges: tuple[tuple[float, float], ...] = ()
    peaks: tuple[tuple[float, float], ...] = ()
    working: tuple[int, float] = (0, 0.0)
    efficiency: float = 1.0
    service: ServiceTime | None = None

    def outlook(self, signals: Signals, policy: Policy) -> Outlook | None:
        """What lies ahead; None before a batch has been timed."""
        if self.service is None:
            return None
        rate = forecast(self.demand)
        return Outlook(
            demand=self.demand,
            rate=rate,
            surge=self.surge(rate, self.exposed(policy)),
            service=self.service.rate(policy.max_batch_size) * self.efficiency,
            cold=self.cold_start,
            ready=signals.ready + policy.standing,
            starting=signals.starting,
            commit_seconds=policy.commit_seconds,
        )

    def exposed(self, policy: Policy) -> float:
        """Seconds of a surge whose records are due before replicas ordered for it are ready."""
        return max(0.0, self.cold_start + REACTION_SECONDS - policy.max_time_lag)

    def surge(self, rate: float, exposed: float) -> float:
        """Records that a surge may bring beyond `rate` within the exposed time.

        As many as one brought before, or a part of them where that is long ago; but no more than
        the highest rate seen would bring.
        """
        now = self.demand.samples[-1].at
        largest = max((_remembered(now - at) * excess for at, excess in self.surges), default=0.0)
        peak = max((peak for _, peak in self.peaks), default=0.0)
        return max(0.0, min(largest, (peak - rate) * exposed))

    @property
    def cold_start(self) -> float:
        """Seconds within which nine of ten replicas are ready."""
        if not self.cold_starts:
            return DEFAULT_COLD_START_SECONDS
        return quantile(self.cold_starts, COLD_START_QUANTILE)


def _remembered(age: float) -> float:
    """The share of a surge that still counts after `age` seconds."""
    return min(1.0, 2 * (1 - age / SURGE_MEMORY_SECONDS))


def learn(known: Learned, signals: Signals, policy: Policy) -> Learned:
    """Take the signals in; what was scored by another model version says nothing any more."""
    if known.model_version != signals.model_version:
        known = replace(known, scored={}, efficiency=1.0)
    scored = merged(known.scored, signals.scored)
    service = fit(scored)
    cold_starts = (*known.cold_starts, *signals.cold_starts)[-COLD_STARTS_KEPT:]
    known = replace(known, scored=scored, service=service, cold_starts=cold_starts)
    patience = STUCK_BATCHES * service.seconds(policy.max_batch_size) if service else 0.0
    exposed = known.exposed(policy)
    window = max(2 * policy.max_time_lag, exposed, 2 * SLOW_SECONDS)
    demand = observe(known.demand, signals.at, signals.partitions, window, patience)
    surges = tuple(s for s in known.surges if 0 <= signals.at - s[0] <= SURGE_MEMORY_SECONDS)
    if exposed and demand.observed(exposed) >= exposed:
        then = demand.before(exposed)
        excess = demand.arrived_in(exposed) - then.forecast * exposed
        surges = (*(s for s in surges if s[1] > excess), (signals.at, excess))
    rate = forecast(demand)
    peaks = tuple(p for p in known.peaks if 0 <= signals.at - p[0] <= SURGE_MEMORY_SECONDS)
    peaks = (*(p for p in peaks if p[1] > rate), (signals.at, rate))
    demand = expecting(demand, rate)
    known = replace(known, demand=demand, working=_working(known, signals, policy))
    known = replace(known, efficiency=_efficiency(known, signals.at, policy))
    return replace(
        known, demand=demand, model_version=signals.model_version, surges=surges, peaks=peaks
    )


def _working(known: Learned, signals: Signals, policy: Policy) -> tuple[int, float]:
    """How many replicas work, and since when it has been so many."""
    count = signals.ready + policy.standing
    return known.working if known.working[0] == count else (count, signals.at)


def _efficiency(known: Learned, at: float, policy: Policy) -> float:
    """What replicas score when records wait for them all the time, in terms of the fitted time.

    It is below 1 where a batch takes longer than its scoring: on its way, or in a feeder that has
    other things to do.
    """
    (count, since), demand = known.working, known.demand
    saturated = demand.overdue(SATURATED_SECONDS) > 0 and at - since >= SATURATED_SECONDS
    if not (saturated and count and known.service):
        return known.efficiency
    possible = count * known.service.rate(policy.max_batch_size)
    fresh = min(1.0, max(LEAST_EFFICIENCY, demand.throughput(SATURATED_SECONDS) / possible))
    return known.efficiency + EFFICIENCY_WEIGHT * (fresh - known.efficiency)


def forecast(demand: Demand) -> float:
    """Arrivals per second to expect: the latest, or those of the last minute if there were more."""
    return max(demand.rate(FAST_SECONDS), demand.rate(SLOW_SECONDS))
