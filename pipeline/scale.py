"""How many replicas, and how large a batch: a pure decision, with its memory passed in and out.

The rule is that of delivery dates (`pipeline.outlook`): those replicas are enough with which no
record waits longer than the user allows, counting the ones on their way from when they will be
ready. Replicas are ordered at the last moment at which an order still keeps the dates, and then for
dates well before the limit. They are given back only down to what has been enough for a while, and
only as far as a surge like those seen before could still be answered in time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeAlias

from pipeline.outlook import (
    FAST_SECONDS,
    REACTION_SECONDS,
    Learned,
    Outlook,
    Policy,
    Signals,
    learn,
)

# Shares of max_time_lag: dates at ALARM of it that would be missed make an order, which is for
# dates at AIM of it.
ALARM = 0.8
AIM = 0.6
# An order that is made so much later is too late: what it would change comes after these dates.
LAST_MOMENT_SECONDS = (15.0, 30.0)
# Capacity over the expected rate that replicas are kept for.
SLACK = 1.02
MIN_HOLD_SECONDS = 60.0
HOLD_COLD_STARTS = 0.7
# Where little is saved, a hold is longer.
SMALL_SHARE = 0.1
SMALL_HOLDS = 3.0
# Between two decisions a hold may seem this much shorter than it is.
JITTER_SECONDS = 10.0
MIN_RECOVERY_SECONDS = 30.0
# A rate that has risen is known after the fast window only: one order then, not three before.
BETWEEN_ORDERS_SECONDS = 10.0
# A scale-up must bring this share of what it promised; else it is undone, and stands against the
# next one for a while.
EFFECTIVE = 0.25
SETTLE_SECONDS = 30.0
CEILING_SECONDS = 600.0
# Batches are as large as is needed with so much to spare, so that answers come early and spread
# over the replicas; not so small that most of the time goes into what each batch costs anyway.
BATCH_SPARE = 1.5
BATCH_EFFICIENCY = 0.5
# What a call to a replica costs beside its scoring, in seconds.
CALL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Attempt:
    """A scale-up from `before` replicas, at the throughput that it is to raise.

    `ready_at` is when the last of them was ready.
    """

    before: int
    throughput: float
    ready_at: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision leaves for the next one.

    `enough` are (at, replicas) that would have been enough. `ceiling` is a number of replicas above
    which more did not help, and since when. `raised` is when replicas were last ordered.
    """

    learned: Learned = field(default_factory=Learned)
    enough: tuple[tuple[float, int], ...] = ()
    raised: float | None = None
    attempt: Attempt | None = None
    ceiling: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Replicas to have beside the feeders' own, records in a batch at most, and why."""

    replicas: int
    batch_size: int
    reason: str


# What decides: `decide`, or another one like it with a memory of its own.
Decide: TypeAlias = Callable[[Signals, Any, Policy], tuple[Decision, Any]]


def decide(signals: Signals, memory: Memory, policy: Policy) -> tuple[Decision, Memory]:
    """What to order now, and what to remember for the next decision.

    It depends on its arguments alone. Call it every few seconds, with what was measured since.
    """
    have = signals.ready + len(signals.starting)
    if not signals.partitions:
        return Decision(have, policy.max_batch_size, "held: the offsets are not known"), memory
    memory = replace(memory, learned=learn(memory.learned, signals, policy))
    outlook = memory.learned.outlook(signals, policy)
    least, because = _least(memory.learned, policy)
    if outlook is None:
        count = max(have, least, 0 if policy.standing else 1)
        reason = "held: no batch has been timed yet"
        return Decision(count, policy.max_batch_size, reason), memory
    total, reason, memory = _total(signals.at, memory, policy, outlook, least)
    replicas = total - policy.standing
    if replicas < least or (replicas == least and not outlook.demand.waiting):
        replicas, reason = least, f"{reason}; {because}"
    elif replicas > policy.max_replicas:
        replicas = policy.max_replicas
        reason = f"{reason}; max_replicas = {policy.max_replicas} allows no more"
    if outlook.demand.stuck:
        numbers = ", ".join(map(str, outlook.demand.stuck))
        reason = f"{reason}; not counted: partition {numbers}, which stands still"
    return Decision(replicas, _batch_size(memory.learned, policy, outlook), reason), memory


def _least(learned: Learned, policy: Policy) -> tuple[int, str]:
    """The fewest replicas, and why so many."""
    wake = learned.cold_start + REACTION_SECONDS + policy.commit_seconds
    if policy.min_replicas == 0 and not policy.standing and wake > ALARM * policy.max_time_lag:
        return 1, (
            f"not to zero, as min_replicas allows: from a first record to its commit it would take "
            f"about {wake:.0f} s, too long for max_time_lag = {policy.max_time_lag:g}"
        )
    return policy.min_replicas, f"min_replicas = {policy.min_replicas}"


def _total(
    at: float, memory: Memory, policy: Policy, outlook: Outlook, least: int
) -> tuple[int, str, Memory]:
    """Replicas in all, the feeders' own among them; at least `least` beside those."""
    demand, have = outlook.demand, outlook.have
    if demand.blocked > demand.waiting:
        reason = "held: records wait for the sink, which replicas do not help"
        return have, reason, replace(memory, enough=(), attempt=None)
    stalled = demand.throughput(SETTLE_SECONDS) < demand.rate(SETTLE_SECONDS) / 2
    if stalled and not demand.waiting and demand.backlog > SETTLE_SECONDS * outlook.rate:
        reason = "held: records neither settle nor wait for replicas"
        return have, reason, replace(memory, enough=(), attempt=None)
    memory, undone = _effect(at, memory, outlook)
    if undone:
        assert memory.ceiling is not None
        return memory.ceiling[0], undone, memory
    facts = (
        f"{outlook.rate:,.0f} records/s arrive, {demand.backlog:,.0f} wait "
        f"({demand.time_lag():.0f} s), a replica scores {outlook.service:,.0f}/s"
    )
    lag = policy.max_time_lag
    recovery = max(MIN_RECOVERY_SECONDS, AIM * lag)
    horizons = tuple(outlook.cold + recovery * n for n in (1, 2, 4))
    soon = tuple(outlook.cold + seconds for seconds in LAST_MOMENT_SECONDS)
    floor = outlook.floor(ALARM * lag)
    if outlook.misses(soon, ALARM * lag) or floor > have or (have == 0 and demand.waiting):
        wanted = max(have + outlook.added(horizons, AIM * lag), floor, 1)
        return _raised(at, memory, policy, outlook, wanted, facts)
    if demand.observed(FAST_SECONDS) < FAST_SECONDS:
        return have, "held: the rate of arrivals is not known yet", replace(memory, enough=())
    steady = ceil(outlook.rate * SLACK / outlook.service - 1e-9)
    kept = outlook.enough(horizons, AIM * lag), outlook.floor(AIM * lag)
    fewest = max(steady, *kept, least + policy.standing)
    return _lowered(at, memory, outlook, min(fewest, have), facts)


def _raised(
    at: float, memory: Memory, policy: Policy, outlook: Outlook, wanted: int, facts: str
) -> tuple[int, str, Memory]:
    """Order `wanted` replicas, or say why not."""
    have, limit = outlook.have, policy.max_replicas + policy.standing
    why = f"held at {have}, as max_replicas = {policy.max_replicas} allows no more: {facts}"
    if memory.ceiling is not None and 0 <= at - memory.ceiling[1] < CEILING_SECONDS:
        if memory.ceiling[0] < limit:
            why = f"held at {have}, as more did not help lately: {facts}"
        limit = min(limit, memory.ceiling[0])
    wanted = min(wanted, limit)
    if wanted <= have:
        return have, why, memory
    if memory.raised is not None and 0 <= at - memory.raised < BETWEEN_ORDERS_SECONDS:
        return have, f"held at {have}, with an order just made: {facts}", memory
    attempt = memory.attempt
    if outlook.demand.waiting:
        first = attempt or Attempt(have, outlook.demand.throughput(SETTLE_SECONDS))
        attempt = replace(first, ready_at=None)
    memory = replace(memory, enough=(), raised=at, attempt=attempt)
    return wanted, f"up from {have} to {wanted}: {facts}", memory


def _lowered(
    at: float, memory: Memory, outlook: Outlook, fewest: int, facts: str
) -> tuple[int, str, Memory]:
    """Give back what has not been needed over the hold."""
    have = outlook.have
    hold = max(MIN_HOLD_SECONDS, HOLD_COLD_STARTS * outlook.cold)
    oldest = at - SMALL_HOLDS * hold - JITTER_SECONDS
    enough = (*(one for one in memory.enough if oldest <= one[0] < at), (at, fewest))
    memory = replace(memory, enough=enough)
    for holds, least_saved in ((1.0, SMALL_SHARE * have), (SMALL_HOLDS, 1)):
        since = at - holds * hold
        most = max(count for then, count in enough if then >= since)
        if enough[0][0] <= since + JITTER_SECONDS and have - most >= max(least_saved, 1):
            # What the older half of the hold needed has passed by now.
            kept = max(count for then, count in enough if then >= at - hold / 2)
            reason = f"down from {have} to {kept}: {facts}; enough for {holds * hold:.0f} s"
            return kept, reason, replace(memory, enough=(), attempt=None)
    return have, f"held at {have}: {facts}", memory


def _effect(at: float, memory: Memory, outlook: Outlook) -> tuple[Memory, str]:
    """Whether the last scale-up has helped; the reason to undo it where it has not."""
    attempt = memory.attempt
    if attempt is None or outlook.starting:
        return memory, ""
    demand = outlook.demand
    if not demand.overdue(FAST_SECONDS) or outlook.have <= attempt.before:
        return replace(memory, attempt=None), ""
    if attempt.ready_at is None or at < attempt.ready_at:
        return replace(memory, attempt=replace(attempt, ready_at=at)), ""
    if at - attempt.ready_at < SETTLE_SECONDS:
        return memory, ""
    promised = (outlook.have - attempt.before) * outlook.service
    settles = demand.throughput(SETTLE_SECONDS)
    gained = settles - attempt.throughput
    if gained >= EFFECTIVE * promised or settles >= demand.rate(SETTLE_SECONDS):
        return replace(memory, attempt=None), ""
    reason = (
        f"down from {outlook.have} to {attempt.before}: the last scale-up promised "
        f"{promised:,.0f} records/s more and brought {max(gained, 0.0):,.0f}"
    )
    return replace(memory, attempt=None, ceiling=(attempt.before, at), enough=()), reason


def _batch_size(learned: Learned, policy: Policy, outlook: Outlook) -> int:
    """The smallest power of two that is enough with something to spare; the largest in need."""
    service = learned.service
    assert service is not None

    def rate(rows: int) -> float:
        return rows / (CALL_SECONDS + service.seconds(rows))

    size = 1
    while size < policy.max_batch_size:
        idle = outlook.demand.waiting <= 2 * size * outlook.ready
        efficient = rate(size) >= BATCH_EFFICIENCY * rate(policy.max_batch_size)
        if idle and efficient and rate(size) * outlook.ready >= BATCH_SPARE * outlook.rate:
            return size
        size *= 2
    return policy.max_batch_size
