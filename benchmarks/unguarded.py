"""The bare loop as a contender."""

import sys

from benchmarks.contender import Contender
from benchmarks.options import to_options


def bare_loop(module: str) -> Contender:
    """One hand-written process, and no guarantee."""
    return Contender(
        name="bare loop",
        guarantee="none",
        command=lambda run: [sys.executable, "-m", module, *to_options(run)],
        kind=lambda _: "loop",
        memory_of="loop",
    )
