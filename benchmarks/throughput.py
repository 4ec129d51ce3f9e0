"""Compare Headrace with a loop without guarantees: `python -m benchmarks.throughput`."""

import sys
from pathlib import Path

from benchmarks.comparison import Comparison, main
from benchmarks.lineup import beside
from benchmarks.recommending import RECOMMENDING
from benchmarks.workload import CARDS

THROUGHPUT = Comparison(
    module="benchmarks.throughput",
    about=__doc__,
    lineups={task.name: beside(task.loop) for task in (CARDS, RECOMMENDING)},
    folder=Path(__file__).parent,
    repeats=3,
    short_records=100_000,
)

if __name__ == "__main__":
    sys.exit(main(THROUGHPUT))
