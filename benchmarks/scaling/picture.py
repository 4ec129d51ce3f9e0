"""Demand, replicas and lag over time: ours beside KEDA at its best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy.typing as npt

from benchmarks.scaling.contest import SCENARIOS, at_peak, best
from benchmarks.scaling.optimum import least_replica_seconds
from benchmarks.scaling.peers import PEERS
from benchmarks.scaling.simulate import REPLICA_RATE, simulate
from benchmarks.scaling.traces import Trace
from pipeline.scale import decide

PREFERRED = ("worldcup_match", "nyc_taxi_x12", "flash", "on_off")
MOST = 4

Values: TypeAlias = npt.NDArray[Any]


def draw(traces: Sequence[Trace], path: Path) -> None:
    """Up to four traces, in the first scenario."""
    chosen = [trace for trace in traces if trace.name in PREFERRED] or list(traces)
    scenario, keda = SCENARIOS[0], PEERS[0]
    columns = []
    for trace in map(at_peak, chosen[:MOST]):
        _, settings = best(keda, trace, scenario, least_replica_seconds(trace, scenario))
        ours = simulate(trace, scenario, decide)
        theirs = simulate(trace, scenario, keda.make(**settings))
        curves = {
            "Headrace": (ours.paid, ours.lag),
            "KEDA, best for this trace": (theirs.paid, theirs.lag),
        }
        columns.append(Column(trace.name, trace.rates, curves))
    save(columns, scenario.max_time_lag, path)


@dataclass(frozen=True, slots=True)
class Column:
    """Demand in records per second, and replicas paid for and lag by policy, for each second."""

    title: str
    rates: Values
    curves: Mapping[str, tuple[Values, Values]]


def save(columns: Sequence[Column], limit: float, path: Path) -> None:
    """Two rows of plots: replicas above, lag below."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    size = (5.5 * len(columns), 6)
    figure, axes = plt.subplots(2, len(columns), figsize=size, sharex="col", squeeze=False)
    for number, column in enumerate(columns):
        above, below = axes[0][number], axes[1][number]
        minutes = [second / 60 for second in range(len(column.rates))]
        demand = column.rates / REPLICA_RATE
        above.fill_between(minutes, demand, color="0.85", label="demand, in replicas")
        for name, (paid, lag) in column.curves.items():
            above.plot(minutes, paid, lw=1, label=name)
            below.plot(minutes, lag, lw=0.8, label=name)
        below.axhline(limit, color="0.4", ls=":", label="max_time_lag")
        above.set_title(column.title)
        below.set_xlabel("minutes")
    axes[0][0].set_ylabel("replicas paid for")
    axes[1][0].set_ylabel("time lag, s")
    axes[0][0].legend(fontsize=8)
    axes[1][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
