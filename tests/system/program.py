"""A program of ours as its user starts it: in a process of its own, without a terminal."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_module(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m name` in the repository's root, led to no broker that happens to run."""
    mine = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=ROOT,
        env=mine | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
