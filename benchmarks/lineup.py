"""Who takes part. The first is what the others are compared with."""

from functools import partial

from benchmarks.comparison import Lineup
from benchmarks.ours import headrace
from benchmarks.unguarded import bare_loop


def beside(loop: str) -> Lineup:
    """Headrace beside the hand-written loop of this module, in the order of the table."""
    return {
        "bare loop": partial(bare_loop, loop),
        "headrace exactly_once remote": partial(headrace, "exactly_once", "remote"),
        "headrace exactly_once local": partial(headrace, "exactly_once", "local"),
        "headrace at_least_once remote": partial(headrace, "at_least_once", "remote"),
        "headrace at_least_once local": partial(headrace, "at_least_once", "local"),
    }
