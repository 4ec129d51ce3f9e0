"""Who takes part. The first is what the others are compared with."""

from benchmarks.contender import Contender
from benchmarks.ours import headrace
from benchmarks.unguarded import bare_loop


def contenders(loop: str) -> list[Contender]:
    """All of them, in the order of the table; `loop` is the module of the hand-written one."""
    return [
        bare_loop(loop),
        headrace("exactly_once", "remote"),
        headrace("exactly_once", "local"),
        headrace("at_least_once", "remote"),
        headrace("at_least_once", "local"),
    ]
