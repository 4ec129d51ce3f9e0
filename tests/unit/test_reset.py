"""Setting offsets anew: where each partition goes on, and what the journal is told."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline import journal
from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.reset import Move, boundaries, skip_gap

P, Q, R = (Partition("in", number) for number in range(3))


def test_a_gap_is_skipped_and_nothing_else() -> None:
    """Below the log, beyond it or unknown: the log's start; at both its ends still in range."""
    before = {P: 4, Q: 10, R: 21}
    starts, ends = {P: 5, Q: 10, R: 10}, {P: 9, Q: 20, R: 20}
    assert skip_gap(before, starts, ends) == {P: 5, Q: 10, R: 10}
    assert skip_gap({P: 9}, {P: 5, Q: 3}, {P: 9, Q: 3}) == {P: 9, Q: 3}


@given(st.none() | st.integers(0, 99), st.integers(0, 99))
def test_a_move_skips_or_repeats(before: int | None, after: int) -> None:
    """Never both; without a known offset neither can be told."""
    move = Move(P, before, after)
    assert 0 in (move.skipped, move.again)
    if before is None:
        assert (move.skipped, move.again) == (0, 0)
    else:
        assert before + move.skipped - move.again == after


def test_each_partition_of_the_journal_is_told() -> None:
    """Slots with their positions and the outputs' ends; the rest that nobody writes there now."""
    layout = Layout(7, 2, 3, "id", True)
    made = dict(boundaries({P: 1, Q: 2, R: 3}, layout, 9, "w", {"out": [5, 6]}, 3))
    rolls = {number: journal.read_roll(value) for number, value in made.items()}
    assert {number: roll.positions for number, roll in rolls.items()} == {
        0: {"0": 1, "2": 3},
        1: {"1": 2},
        2: {},
    }
    assert [rolls[n].reason for n in range(3)] == ["offsets", "offsets", "handover"]
    assert [rolls[n].outputs for n in range(3)] == [{"out": [5, 6]}, {"out": [5, 6]}, None]
    assert {(roll.layout, roll.epoch, roll.writer) for roll in rolls.values()} == {(7, 9, "w")}
