"""Compare Headrace with what one would use instead: `python -m benchmarks.peers`."""

import sys
from pathlib import Path

from benchmarks.comparison import Comparison, main
from benchmarks.peers.lineup import PEERS

COMPARISON = Comparison(
    module="benchmarks.peers",
    about=__doc__,
    lineups=PEERS,
    folder=Path(__file__).parent,
    repeats=5,
    short_records=50_000,
)

if __name__ == "__main__":
    sys.exit(main(COMPARISON))
