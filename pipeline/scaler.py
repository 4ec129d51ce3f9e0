"""Asks `pipeline.scale` every few seconds, from what the driver hears, and tells what it answered.

Where the number of replicas is fixed there is nothing to decide. With `scaling: observe` it decides
as if it acted, and the number stays. With `placement: auto` it asks `pipeline.placement` too, whose
choice says which replicas there are to count.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import placement
from pipeline.batch import Partition
from pipeline.capacity import BySize, timed
from pipeline.config import Config
from pipeline.control import Report
from pipeline.demand import Offsets
from pipeline.fleet import Readiness
from pipeline.outlook import Policy, Signals
from pipeline.scale import Decide, Decision, Memory
from pipeline.slots import TURN_SECONDS

log = logging.getLogger("headrace.scale")

DECISION_SECONDS = 5.0
# So soon batches grow at the start, and so soon a model that is too slow for the feeders is seen.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Count:
    """Replicas to begin with, and the policy that changes their number; None leaves it fixed.

    With `acts` false the policy is asked and its answers are only shown.
    """

    first: int
    policy: Policy | None = None
    acts: bool = True


@dataclass(frozen=True, slots=True)
class Auto:
    """What `placement: auto` chooses by, and the replicas for either choice."""

    limits: placement.Limits
    local: Count
    remote: Count


def count_of(config: Config, slots: int, *, local: bool) -> Count:
    """What a config asks for where each of so many feeders scores itself (`local`), or none."""
    replicas, most = config.replicas, config.most_replicas
    fixed = 0 if local else replicas.count
    if most is None:
        return Count(fixed)
    least = (0 if local else 1) if replicas.min_replicas is None else replicas.min_replicas
    if config.placement == "auto" and not local:
        least = max(least, 1)
    policy = Policy(
        min_replicas=least,
        max_replicas=most,
        max_time_lag=replicas.max_time_lag,
        max_batch_size=config.batching.max_batch_size,
        commit_seconds=config.commit.interval_ms / 1000,
        standing=slots if local else 0,
    )
    acts = config.scaling == "act"
    return Count(max(least, 0 if local else 1) if acts else fixed, policy, acts)


def scaler_of(config: Config, slots: int, model_version: str, decide: Decide) -> "Scaler":
    """What a config asks for, of so many feeders."""
    count = count_of(config, slots, local=config.scores_in_feeders)
    if config.placement != "auto":
        return Scaler(count, model_version, decide)
    # A commit is then late by no more than its interval, and a feeder answers in about a turn.
    held = min(config.commit.interval_ms / 1000, TURN_SECONDS)
    limits = placement.Limits(config.batching.max_batch_size, held, config.replicas.gpu)
    either = (count_of(config, slots, local=local) for local in (True, False))
    auto = Auto(limits, *either)
    return Scaler(count, model_version, decide, auto)


class Scaler:
    """Owns the number of replicas and the memory of the decisions; used by the driver's thread.

    `count` stands at first; with `auto`, for as long as its first choice does.
    """

    def __init__(
        self, count: Count, model_version: str, decide: Decide, auto: Auto | None = None
    ) -> None:
        self._count = count
        self._auto = auto
        self._placing = None if auto is None else placement.first(auto.limits)
        self._looked_at = float("-inf")
        self._seen: BySize = {}
        self._decide = decide
        self._model_version = model_version
        self._memory: Any = Memory()
        self._scored: BySize = {}
        self._decided_at = float("-inf")
        self._said: int | None = None
        self.replicas = count.first
        self.decision: Decision | None = None
        # Orders for more, and for fewer.
        self.ups = 0
        self.downs = 0

    @property
    def choice(self) -> placement.Choice | None:
        """What `placement: auto` has chosen, None where the config says it."""
        return None if self._placing is None else self._placing.choice

    @property
    def here(self) -> bool:
        """Whether feeders that can score shall do so."""
        return self.choice is None or self.choice.here

    @property
    def mode(self) -> str:
        """Whether the number is fixed, observed or acted upon."""
        if self._count.policy is None:
            return "fixed"
        return "act" if self._count.acts else "observe"

    @property
    def batch_size(self) -> int | None:
        """The largest batch that feeders should send; None leaves it to them."""
        decided = self.decision.batch_size if self.decision and self._count.acts else None
        bearable = self.choice.batch_size if self.choice else None
        return min((size for size in (decided, bearable) if size is not None), default=None)

    def take(self, report: Report, now: float) -> None:
        """Take in what a feeder's batches took; under `auto` look now and then who shall score."""
        if self._count.policy is not None:
            self._scored = timed(report.timings, self._scored)
        if self._auto is not None and self._placing is not None:
            self._seen = timed(report.timings, self._seen)
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                self._place(self._auto, self._placing)

    def _place(self, auto: Auto, before: placement.Memory) -> None:
        self._placing = placement.choose(self._seen, before, auto.limits)
        self._seen = {}
        choice = self._placing.choice
        if choice.here is not before.choice.here:
            log.info("placement: %s, as %s", choice.placement, choice.reason)
            self._count = auto.local if choice.here else auto.remote
            first = self._count.first
            self.replicas = max(self.replicas, first) if self._count.acts else first

    def due(self, now: float) -> bool:
        """Whether it is time for the next decision."""
        return self._count.policy is not None and now - self._decided_at >= DECISION_SECONDS

    def decide(
        self,
        now: float,
        ends: Mapping[Partition, int],
        reports: Sequence[Report],
        readiness: Readiness,
    ) -> None:
        """Decide anew. `ends` is empty where the broker did not tell them lately."""
        policy = self._count.policy
        assert policy is not None
        self._decided_at = now
        signals = Signals(
            at=now,
            partitions={
                item.partition.number: Offsets(
                    item.start,
                    # Ends are asked for now and then, and may be older than the report.
                    max(ends[item.partition], item.position),
                    item.position,
                    item.done,
                    item.committed,
                    report.waiting_on,
                )
                for report in reports
                for item in report.partitions
                if item.partition in ends
            },
            ready=readiness.ready,
            starting=readiness.starting,
            scored=self._scored,
            cold_starts=readiness.cold_starts,
            model_version=self._model_version,
        )
        self._scored = {}
        decision, self._memory = self._decide(signals, self._memory, policy)
        self._follow(decision, readiness.ready + len(readiness.starting))

    def _follow(self, decision: Decision, have: int) -> None:
        self.decision = decision
        if self._count.acts:
            self.replicas = decision.replicas
        # What is only observed would be said again every few seconds.
        if decision.replicas not in {have, self._said}:
            self.ups += decision.replicas > have
            self.downs += decision.replicas < have
            how = "replicas" if self._count.acts else "replicas, observed only"
            log.info("%s: %s", how, decision.reason)
        if decision.replicas != have:
            self._said = None if self._count.acts else decision.replicas
