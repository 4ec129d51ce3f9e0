"""Signals: the first one asks, the second one ends, and afterwards everything is as it was."""

import signal

import pytest

from pipeline.signals import stop_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_the_first_signal_asks_for_a_drain(number: signal.Signals) -> None:
    """What runs goes on, and finds out when it asks."""
    with stop_signals() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()


@BOTH
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(first: signal.Signals, number: signal.Signals) -> None:
    """Whichever came before it; the error names the signal."""
    with stop_signals() as asked:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt, match=number.name):
            signal.raise_signal(number)
        assert asked()


def test_handlers_are_given_back() -> None:
    """Also after an error: what follows the command meets the signals as before."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with stop_signals():
        inside = [signal.getsignal(number) for number in numbers]
    assert inside[0] is inside[1] is not before[0]
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(ZeroDivisionError), stop_signals():
        1 / 0  # noqa: B018 - any error of what runs
    assert [signal.getsignal(number) for number in numbers] == before


def test_each_use_begins_unasked() -> None:
    """A signal that an earlier command took in is over with it."""
    with stop_signals():
        signal.raise_signal(signal.SIGTERM)
    with stop_signals() as asked:
        assert not asked()
