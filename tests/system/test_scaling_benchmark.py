"""The scaling benchmark's short form fills its table, and takes policies and traces from outside."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling.contest import OURS, POISONED, SCENARIOS, at_peak
from benchmarks.scaling.optimum import least_replica_seconds
from benchmarks.scaling.peers import PEERS, keda, static
from benchmarks.scaling.real import difference
from benchmarks.scaling.simulate import MAX_REPLICAS, PEAK_REPLICAS, Scenario, simulate
from benchmarks.scaling.traces import Trace, all_traces, read, step, unseen_traces
from pipeline.scale import decide

ROOT = Path(__file__).parents[2]
POLICY = """
from pipeline.scale import Decision

def always_three(signals, memory, policy):
    return Decision(3, policy.max_batch_size, "three"), None
"""


def run(folder: Path, *arguments: str) -> str:
    """Run the command in `folder`; give the table that it wrote."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--output", str(folder), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results.png").stat().st_size > 0
    return (folder / "results.md").read_text(encoding="utf-8")


def test_the_short_form_has_a_row_for_every_policy_in_every_scenario(tmp_path: Path) -> None:
    """Ours with one setting, the others as shipped and at their best."""
    text = run(tmp_path, "--short")
    for scenario in (*SCENARIOS, POISONED):
        part = text.partition(f"## {scenario.name}\n")[2].partition("\n## ")[0]
        rows = [line.split(" | ")[0].strip("| ") for line in part.splitlines() if "|" in line][2:]
        expected = [OURS] + [p.name for p in PEERS for _ in range(2 if p.grid else 1)]
        assert rows == expected


def test_a_policy_and_a_trace_from_outside_take_part(tmp_path: Path) -> None:
    """A function in the current directory and a CSV are all that a challenger needs."""
    (tmp_path / "mine.py").write_text(POLICY, encoding="utf-8")
    (tmp_path / "mine.csv").write_text("seconds,records_per_second\n0,10\n300,100\n600,10\n")
    text = run(
        tmp_path,
        "--ours-only",
        "--policy",
        "mine:always_three",
        "--trace",
        str(tmp_path / "mine.csv"),
    )
    assert "Traces: mine." in text
    assert text.count("| mine:always_three | one for all |") == len(SCENARIOS) + 1


def test_a_trace_without_its_columns_is_refused(tmp_path: Path) -> None:
    """The message names the file and what is missing."""
    path = tmp_path / "bad.csv"
    path.write_text("time,rate\n0,1\n1,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.csv: there is no column 'seconds'"):
        read(path)


def test_no_policy_is_cheaper_than_the_clairvoyant_within_the_limit() -> None:
    """What keeps the lag costs at least the optimum."""
    trace = at_peak(step().first(7200))
    for scenario in SCENARIOS:
        optimum = least_replica_seconds(trace, scenario)
        for policy in (decide, static(PEAK_REPLICAS), keda(1500.0, 60.0)):
            done = simulate(trace, scenario, policy)
            assert done.over > 0 or done.replica_seconds >= 0.99 * optimum


def test_records_are_conserved_and_the_lag_is_that_of_the_oldest() -> None:
    """With half the replicas that a steady rate needs, half of the time becomes lag."""
    trace = Trace("steady", np.full(1200, 1000.0))
    done = simulate(trace, Scenario("steady", 60.0, 30.0), static(5))
    assert done.left == pytest.approx(600_000, rel=0.02)
    assert done.lag[-1] == pytest.approx(600, rel=0.03)
    assert int(done.paid.max()) <= MAX_REPLICAS


def test_every_trace_is_there_with_a_rate_for_each_second() -> None:
    """Five recorded ones and five synthetic ones, and as many on which nothing was tuned."""
    traces = all_traces() + unseen_traces()
    assert len({trace.name for trace in traces}) == len(traces) == 20
    assert all(len(trace.rates) > 3000 and trace.rates.min() >= 0 for trace in traces)


def test_two_curves_are_apart_by_more_than_when_their_commits_fall() -> None:
    """The same lag with another phase of its commits differs by nothing, a later one by its delay."""
    lag = np.tile(np.arange(5.0), 40)
    assert difference(lag, np.roll(lag, 2)) == pytest.approx(0.0)
    assert difference(lag + 3.0, np.roll(lag, 2)) == pytest.approx(3.0)
