"""What a start that failed counts for."""

import pytest

from pipeline.ports import ActorDied, ActorLost
from pipeline.starts import LOST_STARTS, START_FAILURES, FailedStarts


@pytest.mark.parametrize(
    ("error", "allowed"),
    [
        (ActorLost("RuntimeError: no such model"), START_FAILURES),
        (ActorDied("its worker exited"), LOST_STARTS),
    ],
)
def test_so_many_in_a_row_are_too_many(error: Exception, allowed: int) -> None:
    """What cannot be built is given up soon; a process may be killed more often."""
    starts = FailedStarts()
    assert [starts.count(error) for _ in range(allowed)] == [False] * (allowed - 1) + [True]


def test_one_start_forgives_those_before() -> None:
    """Only failures in a row count: a run of days meets some of each."""
    starts = FailedStarts()
    for _ in range(LOST_STARTS):
        assert not starts.count(ActorDied("node lost"))
        assert not starts.count(ActorLost("no such model"))
        starts.forgive()
