"""Demand, replicas and lag over time: ours beside KEDA at its best."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.scaling.contest import SCENARIOS, at_peak, best
from benchmarks.scaling.optimum import least_replica_seconds
from benchmarks.scaling.peers import PEERS
from benchmarks.scaling.simulate import REPLICA_RATE, simulate
from benchmarks.scaling.traces import Trace
from pipeline.scale import decide

PREFERRED = ("worldcup_match", "nyc_taxi_x12", "flash", "on_off")
MOST = 4


def draw(traces: Sequence[Trace], path: Path) -> None:
    """Two rows of plots for up to four traces, in the first scenario."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    chosen = [trace for trace in traces if trace.name in PREFERRED] or list(traces)
    chosen = [at_peak(trace) for trace in chosen[:MOST]]
    scenario, keda = SCENARIOS[0], PEERS[0]
    figure, axes = plt.subplots(
        2, len(chosen), figsize=(5 * len(chosen), 6), sharex="col", squeeze=False
    )
    for column, trace in enumerate(chosen):
        hours = [second / 3600 for second in range(len(trace.rates))]
        optimum = least_replica_seconds(trace, scenario)
        _, settings = best(keda, trace, scenario, optimum)
        runs = {
            "Headrace": simulate(trace, scenario, decide),
            "KEDA, best for this trace": simulate(trace, scenario, keda.make(**settings)),
        }
        above, below = axes[0][column], axes[1][column]
        above.fill_between(
            hours, trace.rates / REPLICA_RATE, color="0.85", label="demand, in replicas"
        )
        for name, run in runs.items():
            above.plot(hours, run.paid, lw=1, label=name)
            below.plot(hours, run.lag, lw=0.8, label=name)
        below.axhline(scenario.max_time_lag, color="0.4", ls=":", label="max_time_lag")
        above.set_title(trace.name)
        below.set_xlabel("hours")
    axes[0][0].set_ylabel("replicas paid for")
    axes[1][0].set_ylabel("time lag, s")
    axes[0][0].legend(fontsize=8)
    axes[1][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
