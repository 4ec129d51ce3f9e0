"""Every policy on every trace: ours with its one setting, others as shipped and at their best."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from benchmarks.scaling.optimum import least_replica_seconds
from benchmarks.scaling.peers import PEERS, Peer, Settings
from benchmarks.scaling.simulate import (
    PEAK_REPLICAS,
    REPLICA_RATE,
    Run,
    Scenario,
    simulate,
)
from benchmarks.scaling.traces import Trace
from pipeline import scale
from pipeline.scale import Decide

SCENARIOS = (
    Scenario("limit 60 s, cold start 30 s", 60.0, 30.0),
    Scenario("limit 60 s, cold start 90 s", 60.0, 90.0),
    Scenario("limit 300 s, cold start 120 s", 300.0, 120.0),
)
POISONED = Scenario("1 of 64 partitions poisoned", 60.0, 30.0, partitions=64, poisoned=True)
# A trace counts as failed above this share of its time over the limit.
FAILED = 0.001
OURS = "Headrace"
SHIPPED, BEST = "as shipped", "best per trace"


@dataclass(frozen=True, slots=True)
class Score:
    """How a policy did on one trace; `cost` is in terms of the clairvoyant optimum."""

    over: float
    cost: float
    actions_per_hour: float
    mean_lag: float
    worst_lag: float


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one scenario, a score for each trace."""

    scenario: str
    policy: str
    setting: str
    scores: tuple[Score, ...]

    @property
    def failed(self) -> int:
        """Traces that were over the limit for more than one in a thousand seconds."""
        return sum(score.over > FAILED for score in self.scores)

    def mean(self, field: str) -> float:
        """The mean of a score over the traces."""
        return float(np.mean([getattr(score, field) for score in self.scores]))


def named(spec: str) -> Decide:
    """The policy `module:function`. Raises ValueError where there is none."""
    module, _, function = spec.partition(":")
    try:
        found: Decide = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ValueError(f"--policy {spec}: {problem}. Write module:function") from problem
    return found


def scored(run: Run, optimum: float) -> Score:
    """A run in figures."""
    return Score(
        run.over,
        run.replica_seconds / optimum,
        run.actions_per_hour,
        float(run.lag.mean()),
        float(run.lag.max()),
    )


def at_peak(trace: Trace) -> Trace:
    """The trace with its busiest minute at what `PEAK_REPLICAS` can do."""
    return trace.scaled(PEAK_REPLICAS * REPLICA_RATE)


def best(peer: Peer, trace: Trace, scenario: Scenario, optimum: float) -> tuple[Score, Settings]:
    """The cheapest setting that does not fail on the trace, else the one least over the limit."""
    tried = [
        (scored(simulate(trace, scenario, peer.make(**settings)), optimum), settings)
        for settings in peer.candidates()
    ]
    return min(tried, key=lambda one: (max(one[0].over, FAILED), one[0].cost))


def contest(traces: Sequence[Trace], policies: Sequence[str], peers: bool) -> list[Row]:
    """Every row of the table. `policies` are specs of further ones; without `peers` only ours."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = list(
            pool.map(
                _one_trace,
                [at_peak(trace) for trace in traces],
                [tuple(policies)] * len(traces),
                [peers] * len(traces),
            )
        )
    return [Row(*key, tuple(part[key] for part in parts)) for key in parts[0]]


def _one_trace(
    trace: Trace, policies: Sequence[str], peers: bool
) -> dict[tuple[str, str, str], Score]:
    found: dict[tuple[str, str, str], Score] = {}
    tuned: dict[str, Settings] = {}
    for scenario in (*SCENARIOS, POISONED):
        optimum = least_replica_seconds(trace, scenario)
        for name, decide in ((OURS, scale.decide), *((spec, named(spec)) for spec in policies)):
            run = simulate(trace, scenario, decide)
            found[scenario.name, name, "one for all"] = scored(run, optimum)
        for peer in PEERS if peers else ():
            shipped = simulate(trace, scenario, peer.make(**peer.defaults))
            found[scenario.name, peer.name, SHIPPED] = scored(shipped, optimum)
            if not peer.grid:
                continue
            if scenario is POISONED:
                # What was best without the poison.
                run = simulate(trace, scenario, peer.make(**tuned[peer.name]))
                found[scenario.name, peer.name, BEST] = scored(run, optimum)
            else:
                score, settings = best(peer, trace, scenario, optimum)
                found[scenario.name, peer.name, BEST] = score
                tuned.setdefault(peer.name, settings)
    return found
