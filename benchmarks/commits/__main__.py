"""Compare intervals between two commits: `python -m benchmarks.commits`."""

import sys
from functools import partial
from pathlib import Path

from benchmarks.comparison import Comparison, main
from benchmarks.ours import commit_every
from benchmarks.workload import CARDS

# The first is what the others are compared with: what batch jobs and Flink's users take.
INTERVALS_MS = (1000, 50, 100, 200, 5000)

COMPARISON = Comparison(
    module="benchmarks.commits",
    about=__doc__,
    lineups={
        CARDS.name: {f"every {each} ms": partial(commit_every, each) for each in INTERVALS_MS}
    },
    folder=Path(__file__).parent,
    repeats=3,
    short_records=50_000,
)

if __name__ == "__main__":
    sys.exit(main(COMPARISON))
