"""What is decided, from reports to the number of replicas."""

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.batch import Partition
from pipeline.control import PartitionReport, Report, Timing, WaitingOn
from pipeline.fleet import Readiness
from pipeline.outlook import Policy, Signals
from pipeline.placement import LOOKS_TO_LEAVE, LOOKS_TO_RETURN
from pipeline.scale import Decision, decide
from pipeline.scaler import DECISION_SECONDS, LOOK_SECONDS, Count, Scaler, count_of, scaler_of
from pipeline.settings import parse

P = Partition("in", 0)
POLICY = Policy(1, 10, 60.0, 32, 0.2)
JOB = {"job": "fraud", "model": "m", "kafka": {"bootstrap.servers": "localhost:1"}}


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
            scaler.take(told, now)
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


def looks(scaler: Scaler, seconds: float, count: int, since: float = 0.0) -> float:
    """So many looks at full batches that take so long; the time after them."""
    for number in range(count):
        rows = scaler.batch_size or 32
        took = seconds * rows / 32
        now = since + number * LOOK_SECONDS
        scaler.take(report(0, *[Timing(0, rows, took, took)] * 3), now)
        # What else comes before the next look is taken in with it.
        scaler.take(report(0), now + LOOK_SECONDS / 2)
    return since + count * LOOK_SECONDS


@pytest.mark.parametrize(("scaling", "first", "back"), [("act", 1, 1), ("observe", 3, 0)])
def test_replicas_are_ordered_where_feeders_are_to_score_no_more(
    caplog: pytest.LogCaptureFixture, scaling: str, first: int, back: int
) -> None:
    """At least one, or as many as are fixed; the log says why, and again when they return."""
    caplog.set_level(logging.INFO)
    settings = {"placement": "auto", "scaling": scaling, "replicas": 3}
    config = parse(JOB | settings | {"batching": {"max_batch_size": 32}}, Path("/"), {})
    scaler = scaler_of(config, 2, "1", decide)
    assert (scaler.here, scaler.replicas, scaler.batch_size, scaler.mode) == (True, 0, 32, scaling)
    now = looks(scaler, 10.0, LOOKS_TO_LEAVE - 1)
    assert (scaler.here, scaler.replicas) == (True, 0)
    assert scaler.batch_size == 1
    now = looks(scaler, 10.0, 1, now)
    assert (scaler.here, scaler.replicas, scaler.batch_size) == (False, first, None)
    looks(scaler, 0.001, 2 * LOOKS_TO_RETURN, now)
    assert (scaler.here, scaler.replicas, scaler.batch_size) == (True, back, 32)
    said = [record.message for record in caplog.records]
    assert [text[:22] for text in said] == ["placement: remote, as ", "placement: local, as a"]


def test_where_feeders_score_or_not_decides_whom_the_policy_counts() -> None:
    """Feeders that score are counted first; once they do not, a replica stays at the least."""
    asked: list[Policy] = []

    def remember(signals: Signals, memory: Any, policy: Policy) -> tuple[Decision, Any]:
        asked.append(policy)
        return decide(signals, memory, policy)

    config = parse(JOB | {"placement": "auto", "replicas": 3}, Path("/"), {})
    scaler = scaler_of(config, 2, "1", remember)
    scaler.decide(0.0, {P: 100}, [report(0)], Readiness(0, (), ()))
    looks(scaler, 10.0, LOOKS_TO_LEAVE)
    scaler.decide(DECISION_SECONDS, {P: 100}, [report(0)], Readiness(0, (1.0,), ()))
    assert [(one.min_replicas, one.max_replicas, one.standing) for one in asked] == [
        (0, 3, 2),
        (1, 3, 0),
    ]


def test_replicas_on_gpus_score_alone_from_the_start() -> None:
    """`auto` has nothing to choose, and says so."""
    config = parse(JOB | {"placement": "auto", "replicas": {"gpu": 1}}, Path("/"), {})
    scaler = scaler_of(config, 2, "1", decide)
    assert (scaler.here, scaler.replicas, scaler.batch_size) == (False, 1, None)
    assert scaler.choice is not None
    assert "feeders have no GPU" in scaler.choice.reason


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"replicas": 3}, Count(3)),
        ({"placement": "local"}, Count(0)),
        (
            {"replicas": {"max_replicas": 9, "max_time_lag": 30}},
            Count(1, Policy(1, 9, 30.0, 8192, 0.1)),
        ),
        (
            {"replicas": {"min_replicas": 0, "max_replicas": 9}},
            Count(1, Policy(0, 9, 60.0, 8192, 0.1)),
        ),
        (
            {"replicas": {"max_replicas": 9}, "placement": "local"},
            Count(0, Policy(0, 9, 60.0, 8192, 0.1, standing=4)),
        ),
        (
            {"replicas": {"count": 5, "max_replicas": 9}, "scaling": "observe"},
            Count(5, Policy(1, 9, 60.0, 8192, 0.1), acts=False),
        ),
    ],
)
def test_a_config_says_how_many_and_what_changes_them(
    settings: dict[str, object], expected: Count
) -> None:
    """A number alone is fixed; with a most it follows the lag, beside feeders that score."""
    config = parse(JOB | settings, Path("/"), {})
    assert count_of(config, 4, local=config.scores_in_feeders) == expected
