"""Thousands of seeds keep every promise; without any one protection some seed breaks one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.play import play
from tests.simulation.switches import SWITCHES

# Together the 2,000 seeds of `make test`.
BLOCK = 200
EXACTLY_ONCE, AT_LEAST_ONCE = range(0, 1400, BLOCK), range(0, 600, BLOCK)
LONG_BLOCK = 1000
# Without a protection a violation is found sooner: among the first dozens, mostly.
ENOUGH = 2000
TRACE_LINES = 40


def keeps(seeds: range, *, exactly_once: bool) -> None:
    """Play the seeds; at a violation tell which one, how to play it again, and how it ended."""
    for seed in seeds:
        found = play(seed, exactly_once=exactly_once)
        if found.violation:
            again = play(seed, exactly_once=exactly_once, tracing=True)
            option = "" if exactly_once else " --at-least-once"
            end = "\n".join(again.trace[-TRACE_LINES:])
            command = f"python -m tests.simulation {seed}{option}"
            pytest.fail(f"seed {seed}: {found.violation}\n{end}\nthe whole trace: {command}")


@pytest.mark.parametrize("first", EXACTLY_ONCE)
def test_exactly_once_holds(first: int) -> None:
    """Each record once in each output, in order, committed before it is visible, never back."""
    keeps(range(first, first + BLOCK), exactly_once=True)


@pytest.mark.parametrize("first", AT_LEAST_ONCE)
def test_at_least_once_holds(first: int) -> None:
    """Nothing is lost, what comes twice comes after a fault, and each row is once in Parquet."""
    keeps(range(first, first + BLOCK), exactly_once=False)


@pytest.mark.long
@pytest.mark.parametrize("first", range(2000, 7000, LONG_BLOCK))
@pytest.mark.parametrize("exactly_once", [True, False])
def test_many_more_seeds_hold(first: int, exactly_once: bool) -> None:
    """The same, five times as often."""
    keeps(range(first, first + LONG_BLOCK), exactly_once=exactly_once)


@pytest.mark.parametrize("name", SWITCHES)
def test_each_protection_is_needed(name: str) -> None:
    """Without it a seed breaks a promise that it keeps with it."""
    switch = SWITCHES[name]
    broken = (
        seed
        for seed in range(ENOUGH)
        if play(seed, exactly_once=switch.exactly_once, parts=switch.parts).violation
    )
    seed = next(broken, None)
    assert seed is not None, f"{ENOUGH} seeds without {name} break nothing"
    assert play(seed, exactly_once=switch.exactly_once).violation is None


def test_a_seed_plays_the_same_again() -> None:
    """In another process, with another order of hashes: the same trace, effect for effect."""
    traces = []
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "29"],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.append(done.stdout)
    assert traces[0] == traces[1]
    assert "commit job.0000" in traces[0]
