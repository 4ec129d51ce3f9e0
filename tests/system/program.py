"""A program of ours as its user starts it: in a process of its own, without a terminal."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_module(
    name: str, *arguments: str, seconds: float = 200.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m name` in the repository's root, led to no broker that happens to run."""
    mine = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=ROOT,
        env=mine | variables,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_benchmark(name: str, broker: str, *arguments: str, seconds: float = 200.0) -> str:
    """Run a comparison in its short form on this broker, and give what it printed."""
    done = run_module(name, "--short", *arguments, seconds=seconds, KAFKA_BOOTSTRAP_SERVERS=broker)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
