"""What is decided, from reports to the number of replicas."""

import logging
from pathlib import Path

import pytest

from pipeline.batch import Partition
from pipeline.control import PartitionReport, Report, Timing, WaitingOn
from pipeline.fleet import Readiness
from pipeline.outlook import Policy
from pipeline.scale import decide
from pipeline.scaler import DECISION_SECONDS, Count, Scaler, count_of
from pipeline.settings import parse

P = Partition("in", 0)
POLICY = Policy(1, 10, 60.0, 32, 0.2)


def report(done: int, *timings: Timing) -> Report:
    return Report(
        slot=0,
        epoch=1,
        partitions=(PartitionReport(P, 0, done + 50, done, done, None),),
        records_in=done,
        records_out=done,
        dead={},
        in_flight={},
        timings=timings,
        lost=(),
        needs_isolation=False,
        waiting_on=WaitingOn.REPLICAS,
        uncommitted_rows=50,
        commits=1,
        last_commit_seconds=None,
        committed_at=None,
        drained=False,
        memory_bytes=0,
    )


def overloaded(scaler: Scaler, *, ends_known: bool = True) -> None:
    """Half a minute in which five times as much arrives as the one replica scores."""
    for tick in range(6):
        now = tick * DECISION_SECONDS
        told = report(500 * tick, Timing(1, 32, 0.32, 0.4), Timing(1, 16, 0.2, 0.3))
        assert scaler.due(now) is (scaler.mode != "fixed")
        if scaler.due(now):
            scaler.take(told)
            ends = {P: 10_000 + 2500 * tick} if ends_known else {}
            coming = scaler.replicas - 1
            scaler.decide(now, ends, [told], Readiness(1, (5.0,) * coming, (20.0,)))
            assert not scaler.due(now + DECISION_SECONDS - 1)


def test_a_fixed_number_is_never_decided_upon() -> None:
    """`replicas: 2` stays two."""
    scaler = Scaler(Count(2), "1", decide)
    overloaded(scaler)
    assert (scaler.mode, scaler.replicas, scaler.decision, scaler.batch_size) == (
        "fixed",
        2,
        None,
        None,
    )


def test_decisions_are_followed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The number becomes what was decided, and the log says why in words."""
    caplog.set_level(logging.INFO)
    scaler = Scaler(Count(1, POLICY), "1", decide)
    overloaded(scaler)
    assert scaler.decision is not None
    assert scaler.replicas == scaler.decision.replicas > 1
    assert scaler.batch_size == 32
    assert scaler.ups >= 1
    assert any("replicas: up from 1 to" in record.message for record in caplog.records)


def test_an_observed_number_stays(caplog: pytest.LogCaptureFixture) -> None:
    """It is decided and said, and neither the number nor the batches change."""
    caplog.set_level(logging.INFO)
    scaler = Scaler(Count(1, POLICY, acts=False), "1", decide)
    overloaded(scaler)
    assert (scaler.mode, scaler.replicas, scaler.batch_size) == ("observe", 1, None)
    assert scaler.ups >= 1
    assert any("observed only: up from 1 to" in record.message for record in caplog.records)


def test_without_the_ends_nothing_changes() -> None:
    """A broker that does not answer is no reason to scale."""
    scaler = Scaler(Count(1, POLICY), "1", decide)
    overloaded(scaler, ends_known=False)
    assert scaler.replicas == 1
    assert scaler.decision is not None
    assert scaler.decision.reason == "held: the offsets are not known"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"replicas": 3}, Count(3)),
        ({"placement": "local"}, Count(0)),
        (
            {"replicas": {"max_replicas": 9, "max_time_lag": 30}},
            Count(1, Policy(1, 9, 30.0, 8192, 0.2)),
        ),
        (
            {"replicas": {"min_replicas": 0, "max_replicas": 9}},
            Count(1, Policy(0, 9, 60.0, 8192, 0.2)),
        ),
        (
            {"replicas": {"max_replicas": 9}, "placement": "local"},
            Count(0, Policy(0, 9, 60.0, 8192, 0.2, standing=4)),
        ),
        (
            {"replicas": {"count": 5, "max_replicas": 9}, "scaling": "observe"},
            Count(5, Policy(1, 9, 60.0, 8192, 0.2), acts=False),
        ),
    ],
)
def test_a_config_says_how_many_and_what_changes_them(
    settings: dict[str, object], expected: Count
) -> None:
    """A number alone is fixed; with a most it follows the lag, beside feeders that score."""
    job = {"job": "fraud", "model": "m", "kafka": {"bootstrap.servers": "localhost:1"}}
    assert count_of(parse(job | settings, Path("/"), {}), 4) == expected
