"""Where `placement: auto` has records scored: in the feeders, or by remote replicas alone.

To score in a feeder saves the hop to a replica, which costs CPU whatever it carries. But the
feeder's loop stands still meanwhile: it polls, commits and answers nothing. So feeders score while
no batch holds one for longer than a commit may be late, or than the hop would cost anyway. Batches
begin small and grow with what is known of their time, so that a slow model is found out before one
of them holds a feeder for long.
"""

from dataclasses import dataclass, field

from pipeline.capacity import KEPT, BySize, Moments, ServiceTime, fit

# CPU of a Ray call there and back, and of each record in it, as measured from 500 to 8,000 of them.
HOP = ServiceTime(0.0045, 1e-6)
FIRST_ROWS = 32
# How far beyond the batches seen the fitted line is believed.
GROWTH = 4
# Looks in a row that must speak for the other place. Replicas are ordered soon, as records wait
# for them; they are given up late, as that saves a little and costs a cold start if it was wrong.
LOOKS_TO_LEAVE = 5
LOOKS_TO_RETURN = 60
RETURN_SHARE = 0.5
# Batches of a size that has not come for a minute or two say nothing of what they take by now.
FORGOTTEN = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the choice keeps to: `held` are seconds that a batch may hold a feeder for.

    `gpus` are those of a replica; feeders have none.
    """

    max_batch_size: int
    held: float
    gpus: float = 0.0

    def allowed(self, rows: int) -> float:
        """Seconds that a batch of so many records may hold a feeder for."""
        return max(self.held, HOP.seconds(rows))


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether feeders score, how large their batches may be (None as configured), and why."""

    here: bool
    batch_size: int | None
    reason: str

    @property
    def placement(self) -> str:
        """The placement that it comes to, as the config names it."""
        return "local" if self.here else "remote"


@dataclass(frozen=True, slots=True)
class Memory:
    """The choice that stands, and what the next one needs.

    `scored` are batches by size, `contrary` the looks in a row that spoke for the other place.
    """

    choice: Choice
    scored: BySize = field(default_factory=dict)
    contrary: int = 0


def first(limits: Limits) -> Memory:
    """What stands before a batch was timed."""
    if limits.gpus:
        reason = f"replicas.gpu = {limits.gpus:g}, and feeders have no GPU"
        return Memory(Choice(False, None, reason))
    rows = min(FIRST_ROWS, limits.max_batch_size)
    return Memory(Choice(True, rows, "no batch has been timed yet"))


def choose(fresh: BySize, memory: Memory, limits: Limits) -> Memory:
    """Choose anew after a look at the batches that all feeders' records came in since the last one.

    It depends on its arguments alone. Call it about each second; without batches nothing changes.
    """
    scored = _remembered(memory.scored, fresh)
    service = fit(scored)
    if limits.gpus or not fresh or service is None:
        return memory
    here, most = memory.choice.here, limits.max_batch_size
    largest = fresh[max(fresh)]
    # Feeders that score leave once batches that may come soon are too long. They score again once
    # none would be: how large batches are depends on who scores them, and would turn it back.
    rows = min(most, GROWTH * int(largest.rows / largest.count)) if here else most
    held, allowed = service.seconds(rows), limits.allowed(rows)
    contrary = held > allowed if here else held < RETURN_SHARE * allowed
    looks = memory.contrary + 1 if contrary else 0
    if looks >= (LOOKS_TO_LEAVE if here else LOOKS_TO_RETURN):
        here, looks = not here, 0
    reason = (
        f"a batch of {rows:,} records would hold a feeder for {held * 1000:,.1f} ms, of "
        f"{allowed * 1000:,.1f} ms that it may; a hop to a replica costs "
        f"{HOP.seconds(rows) * 1000:,.1f} ms"
    )
    size = _bearable(scored, service, limits) if here else None
    return Memory(Choice(here, size, reason), scored, looks)


def _remembered(known: BySize, fresh: BySize) -> BySize:
    """Batches by size, those of earlier looks with ever less weight."""
    found = {
        size: known.get(size, Moments()).scaled(KEPT).plus(fresh.get(size, Moments()))
        for size in sorted({*known, *fresh})
    }
    return {size: moments for size, moments in found.items() if moments.count > FORGOTTEN}


def _bearable(scored: BySize, service: ServiceTime, limits: Limits) -> int:
    """The largest batch that holds a feeder no longer than it may, as far as can be foretold."""
    rows: int = min(limits.max_batch_size, max(FIRST_ROWS, GROWTH * 2 ** max(scored)))
    while rows > 1 and service.seconds(rows) > limits.allowed(rows):
        rows //= 2
    return rows
