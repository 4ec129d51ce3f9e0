"""What is known of a stream from its offsets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control import WaitingOn
from pipeline.demand import GAP_SECONDS, STUCK_SECONDS, Demand, Offsets, observe


def offsets(end: int, done: int, waiting_on: WaitingOn = WaitingOn.RECORDS) -> Offsets:
    return Offsets(0, end, max(done, min(end, done + 10)), done, done, waiting_on)


def seen(*looks: tuple[float, dict[int, Offsets]], known: Demand | None = None) -> Demand:
    demand = known or Demand()
    for at, partitions in looks:
        demand = observe(demand, at, partitions, 300.0, 0.0)
    return demand


def test_rates_are_of_their_window() -> None:
    """The latest seconds and the minute before them are told apart."""
    demand = seen(*((5.0 * n, {0: offsets(500 * n, 500 * n)}) for n in range(13)))
    demand = seen((65.0, {0: offsets(10_000, 6_000)}), known=demand)
    assert demand.rate(5.0) == pytest.approx(800.0)
    assert demand.rate(60.0) == pytest.approx((4000 + 55 * 100) / 60)
    assert demand.throughput(60.0) == pytest.approx(55 * 100 / 60)


@given(
    rate=st.integers(1, 5000),
    lag=st.integers(0, 100),
    step=st.sampled_from([1, 2, 5]),
)
def test_the_time_lag_is_the_age_of_the_oldest_record(rate: int, lag: int, step: int) -> None:
    """With a steady rate, records that are `lag` seconds behind have that age."""
    looks = (
        (float(at), {0: offsets(rate * at, max(0, rate * (at - lag)))})
        for at in range(0, 201, step)
    )
    demand = seen(*looks)
    assert demand.time_lag() == pytest.approx(lag, abs=1e-6)
    assert demand.backlog == rate * lag


def test_two_looks_at_one_time_tell_no_rate() -> None:
    """What lies between them is a rounding of the clock, and a rate over it would be infinite."""
    demand = seen((-2e-311, {0: offsets(0, 0)}), (0.0, {0: offsets(500, 0)}))
    assert (demand.rate(10), demand.throughput(10)) == (0.0, 0.0)


def test_what_is_overdue_waits_for_replicas_longer_than_asked() -> None:
    """Records that arrived in the last seconds are not overdue yet."""
    replicas = WaitingOn.REPLICAS
    demand = seen(*((5.0 * n, {0: offsets(500 * n, 0, replicas)}) for n in range(11)))
    assert demand.overdue(0.0) == 5000
    assert demand.overdue(20.0) == pytest.approx(3000)
    assert demand.overdue(1000.0) == 0


def test_a_partition_that_stands_while_others_move_is_stuck_until_it_moves() -> None:
    """Its records are not counted meanwhile, and are again afterwards."""
    demand = Demand()
    for at in range(0, 2 * int(STUCK_SECONDS), 5):
        both = {0: offsets(10 * at, 10 * at), 1: offsets(1000 + at, 500)}
        demand = seen((float(at), both), known=demand)
    assert demand.stuck == (1,)
    assert demand.backlog == 0
    both = {0: offsets(600, 600), 1: offsets(1060, 501)}
    demand = seen((60.0, both), known=demand)
    assert demand.stuck == ()
    assert demand.backlog == 559


def test_a_partition_whose_turn_has_not_come_is_not_stuck() -> None:
    """Records that were not even polled say nothing about their partition."""
    demand = Demand()
    for at in range(0, 2 * int(STUCK_SECONDS), 5):
        waits = Offsets(0, 1000, 500, 500, 500, WaitingOn.REPLICAS)
        both = {0: offsets(10 * at, 10 * at), 1: waits}
        demand = seen((float(at), both), known=demand)
    assert demand.stuck == ()
    assert demand.waiting == 500


def test_where_all_stand_still_none_is_stuck() -> None:
    """What holds every partition is no single record."""
    demand = seen(*((5.0 * n, {p: offsets(1000, 500) for p in (0, 1)}) for n in range(20)))
    assert demand.stuck == ()
    assert demand.backlog == 1000


@pytest.mark.parametrize("jump", [GAP_SECONDS + 1, 86_400.0, -100.0])
def test_a_step_of_the_clock_begins_anew(jump: float) -> None:
    """Rates across it would be wrong, so nothing is known for a moment."""
    demand = seen(*((1000 + 5.0 * n, {0: offsets(500 * n, 500 * n)}) for n in range(12)))
    demand = seen((1055 + jump, {0: offsets(6000, 6000)}), known=demand)
    assert demand.observed(60.0) == 0
    assert demand.rate(60.0) == 0


def test_offsets_that_go_back_are_no_arrivals() -> None:
    """A topic that was made again counts from where it is now."""
    demand = seen(*((5.0 * n, {0: offsets(500 * n, 500 * n)}) for n in range(12)))
    demand = seen((60.0, {0: offsets(20, 0)}), (65.0, {0: offsets(520, 500)}), known=demand)
    assert demand.rate(10.0) == pytest.approx(50.0)
    assert demand.backlog == 20


def test_samples_are_dropped_with_their_window() -> None:
    """Memory is bounded by the window, however long the run."""
    demand = seen(*((5.0 * n, {0: offsets(n, n)}) for n in range(1000)))
    assert len(demand.samples) <= (300 + GAP_SECONDS) / 5 + 1
