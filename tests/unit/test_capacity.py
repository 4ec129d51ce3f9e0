"""The fit of a batch's time, and quantiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capacity import Moments, fit, merged, quantile, size_class


def timed(fixed: float, per_row: float, *sizes: int) -> dict[int, Moments]:
    return {size_class(b): Moments.of(b, fixed + per_row * b, 10.0) for b in sizes}


@given(
    fixed=st.floats(0.001, 1.0),
    per_row=st.floats(1e-6, 0.1),
    sizes=st.sets(st.sampled_from([1, 2, 4, 8, 16, 32, 1024]), min_size=2),
)
def test_a_line_is_found_again(fixed: float, per_row: float, sizes: set[int]) -> None:
    """Batches of two sizes or more give back the two parts that made them."""
    service = fit(timed(fixed, per_row, *sizes))
    assert service is not None
    assert service.seconds(64) == pytest.approx(fixed + per_row * 64, rel=1e-6)


def test_nothing_is_known_before_a_batch() -> None:
    """Without batches there is no fit."""
    assert fit({}) is None


def test_batches_of_one_size_leave_the_line_open() -> None:
    """Half of their time counts as fixed, until another size is seen."""
    service = fit(timed(0.1, 0.01, 4))
    assert service is not None
    assert service.seconds(4) == pytest.approx(0.14)
    assert service.seconds(8) == pytest.approx(0.21)


def test_an_idle_hour_does_not_drown_what_a_full_batch_takes() -> None:
    """Size classes weigh the same, however many small batches came since."""
    scored = timed(0.08, 0.0075, 32)
    for _ in range(1000):
        scored = dict(merged(scored, timed(0.08, 0.0075, 1)))
    service = fit(scored)
    assert service is not None
    assert service.rate(32) == pytest.approx(100.0)


def test_a_model_that_has_become_slower_is_noticed_within_a_minute() -> None:
    """Twelve decisions' worth of slower batches outweigh what was."""
    scored = timed(0.08, 0.0075, 8, 32)
    for _ in range(24):
        scored = dict(merged(scored, timed(0.16, 0.015, 8, 32)))
    service = fit(scored)
    assert service is not None
    assert service.rate(32) == pytest.approx(50.0, rel=0.1)


def test_a_quantile_is_one_of_the_values() -> None:
    """Nine of ten are not above it."""
    assert quantile([5.0, 1.0, 3.0], 0.9) == 5.0
    assert quantile([float(n) for n in range(100)], 0.9) == 90.0
