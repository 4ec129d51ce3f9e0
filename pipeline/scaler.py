"""Asks `pipeline.scale` every few seconds, from what the driver hears, and tells what it answered.

Where the number of replicas is fixed there is nothing to decide. With `scaling: observe` it decides
as if it acted, and the number stays.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.batch import Partition
from pipeline.capacity import Moments, size_class
from pipeline.config import Config
from pipeline.control import Report
from pipeline.demand import Offsets
from pipeline.fleet import Readiness
from pipeline.outlook import Policy, Signals
from pipeline.scale import Decide, Decision, Memory

log = logging.getLogger("headrace.scale")

DECISION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Count:
    """Replicas to begin with, and the policy that changes their number; None leaves it fixed.

    With `acts` false the policy is asked and its answers are only shown.
    """

    first: int
    policy: Policy | None = None
    acts: bool = True


def count_of(config: Config, slots: int) -> Count:
    """What a config asks for; `slots` are the feeders, each of which scores where that is local."""
    replicas, local = config.replicas, config.placement == "local"
    fixed = 0 if local else replicas.count
    if replicas.max_replicas is None:
        return Count(fixed)
    least = (0 if local else 1) if replicas.min_replicas is None else replicas.min_replicas
    policy = Policy(
        min_replicas=least,
        max_replicas=replicas.max_replicas,
        max_time_lag=replicas.max_time_lag,
        max_batch_size=config.batching.max_batch_size,
        commit_seconds=config.commit.interval_ms / 1000,
        standing=slots if local else 0,
    )
    acts = config.scaling == "act"
    return Count(max(least, 0 if local else 1) if acts else fixed, policy, acts)


class Scaler:
    """Owns the number of replicas and the memory of the decisions; used by the driver's thread."""

    def __init__(self, count: Count, model_version: str, decide: Decide) -> None:
        self._count = count
        self._decide = decide
        self._model_version = model_version
        self._memory: Any = Memory()
        self._scored: dict[int, Moments] = {}
        self._decided_at = float("-inf")
        self._said: int | None = None
        self.replicas = count.first
        self.decision: Decision | None = None
        # Orders for more, and for fewer.
        self.ups = 0
        self.downs = 0

    @property
    def mode(self) -> str:
        """Whether the number is fixed, observed or acted upon."""
        if self._count.policy is None:
            return "fixed"
        return "act" if self._count.acts else "observe"

    @property
    def batch_size(self) -> int | None:
        """The largest batch that feeders should send; None leaves it to them."""
        return self.decision.batch_size if self.decision and self._count.acts else None

    def take(self, report: Report) -> None:
        """Take in what a feeder's batches took."""
        if self._count.policy is not None:
            for timing in report.timings:
                if timing.rows:
                    size = size_class(timing.rows)
                    fresh = Moments.of(timing.rows, timing.service_seconds)
                    self._scored[size] = self._scored.get(size, Moments()).plus(fresh)

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
