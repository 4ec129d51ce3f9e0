"""`headrace run` as a user starts it: a real broker, a real Ray, and counts by other clients."""

import json
import os
import re
import signal
import time

import pytest
import small_job
from audit import assert_exactly_once, assert_ordered, outcome
from runs import (
    GOOD,
    actors,
    committed,
    finished,
    good,
    produce,
    running,
    shown,
    started,
    topics,
    until,
)

from jobs.local_broker import create_topics
from pipeline.edges.kafka.admin import KafkaAdmin

SLOW_ROLLS = {"roll": {"interval_seconds": 2}}


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("placement", ["remote", "local"])
def test_a_run_catches_up(kafka, cluster, topic_prefix, tmp_path, placement, delivery):
    """Each record is answered once, in order, in the topic and in Parquet, and the run ends."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(
        tmp_path, topic_prefix, kafka.bootstrap, placement=placement, delivery=delivery, slots=2
    )
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", good(5000))
    finished(started(path, "--until-caught-up", *cluster))
    result = outcome(small_job.read(path), kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)


def test_unequal_topics_keep_the_order_of_each_key(kafka, cluster, topic_prefix, tmp_path):
    """Where predictions have fewer partitions they go by key, and each key keeps its order."""
    topics(kafka.bootstrap, topic_prefix, partitions=4, predictions=3)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2)
    records = [(b"k%d" % (n % 4), GOOD, None) for n in range(2000)]
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", records)
    finished(started(path, "--until-caught-up", *cluster))
    result = outcome(small_job.read(path), kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert all(found == sorted(found) for found in result.by_key.values())


BAD = {
    "decode:Malformed": b'{"features": [1, 2',
    "missing": b'{"other": 1}',
    "type": b'{"features": [1, 2, "three"]}',
    "nan": b'{"features": [1, 2, NaN]}',
    "overflow": b'{"features": [1, 2, 1e39]}',
    "tombstone": None,
    "utf8": b'{"features": [1, 2, 3], "x": "\xff\xfe"}',
    "deep": b'{"features": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "oversized": b'{"features": [1, 2, 3], "x": "' + b"x" * 2_000_000,
}


def test_bad_records_become_dead_letters_and_lose_nothing(kafka, cluster, topic_prefix, tmp_path):
    """Each bad record arrives whole with its reason, its key and its headers; others are scored."""
    create_topics(
        kafka.bootstrap,
        {f"{topic_prefix}.events": 2, f"{topic_prefix}.dead": 1},
        config={"max.message.bytes": str(4 << 20)},
    )
    create_topics(kafka.bootstrap, {f"{topic_prefix}.predictions": 2, f"{topic_prefix}.journal": 2})
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2)
    bad = [(name.encode(), value, [("trace", b"7")]) for name, value in BAD.items()]
    records = [record for pair in zip(bad, good(len(bad)), strict=True) for record in pair]
    records += good(100)
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", records, partitions=2)
    finished(started(path, "--until-caught-up", *cluster))
    result = outcome(small_job.read(path), kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert len(result.dead) == len(BAD)
    for record in result.letters.values():
        headers = dict(record.headers)
        assert record.value == BAD[record.key.decode()]
        assert headers["trace"] == b"7"
        assert headers["__dlq.errors.message"]


@pytest.mark.parametrize(
    ("placement", "danger"),
    [
        ("remote", "kills"),
        pytest.param("remote", "hangs", marks=pytest.mark.long),
        pytest.param("local", "kills", marks=pytest.mark.long),
        pytest.param("local", "hangs", marks=pytest.mark.long),
    ],
)
def test_a_record_that_takes_its_replica_down_is_the_only_dead_letter(
    kafka, cluster, topic_prefix, tmp_path, placement, danger
):
    """Whoever scores it dies or hangs; it is isolated within a minute, and all others are scored."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(
        tmp_path,
        topic_prefix,
        kafka.bootstrap,
        placement=placement,
        slots=1,
        replicas=2,
        recipe="dangerous:recipe",
        # Each halving costs the lives of some replicas.
        batching={"max_batch_size": 16},
    )
    records = good(200)
    records[77] = (b"bad", b'{"features": [1, 2, 3], "x": "%s"}' % danger.encode(), None)
    # What was scored before fixes the deadline by which a hang shows.
    earlier = produce(kafka.bootstrap, f"{topic_prefix}.events", good(400))
    with running(path, tmp_path, *cluster) as process:
        config = small_job.read(path)
        until(lambda: committed(config, kafka.bootstrap) >= 400, "the good ones are committed")
        places = produce(kafka.bootstrap, f"{topic_prefix}.events", records)
        total = len(earlier) + len(places)
        until(lambda: committed(config, kafka.bootstrap) >= total, "all are committed")
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places) | set(earlier))
    assert len(result.dead) == 1
    assert next(iter(result.letters.values())).key == b"bad"


@pytest.mark.parametrize("placement", ["remote", pytest.param("local", marks=pytest.mark.long)])
def test_whoever_dies_is_replaced_and_nothing_is_lost(kafka, topic_prefix, tmp_path, placement):
    """SIGKILL of a feeder, a replica and the archiver: the run goes on and all is exactly once."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(
        tmp_path, topic_prefix, kafka.bootstrap, placement=placement, slots=2, **SLOW_ROLLS
    )
    config = small_job.read(path)
    places = []
    roles = ["Feeder", "Archiver"] + (["Replica"] if placement == "remote" else [])
    with running(path, tmp_path) as process:
        for role in roles:
            places += produce(kafka.bootstrap, f"{topic_prefix}.events", good(3000))
            until(lambda role=role: actors(process.pid, role), f"there is a {role}")
            victim = actors(process.pid, role)[0]
            places += produce(kafka.bootstrap, f"{topic_prefix}.events", good(1000))
            os.kill(victim, signal.SIGKILL)
            wanted = len(places)
            until(
                lambda wanted=wanted: committed(config, kafka.bootstrap) >= wanted,
                f"the run has gone on without the {role}",
            )
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)


@pytest.mark.long
def test_a_second_run_takes_over_and_the_first_one_ends(kafka, topic_prefix, tmp_path):
    """Two runs of one job do not fence each other for ever: one ends with exit code 3."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2)
    config = small_job.read(path)
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", good(1000))
    with running(path, tmp_path) as first:
        until(lambda: committed(config, kafka.bootstrap) >= 1000, "the first run has scored")
        with running(path, tmp_path) as second:
            # A fence shows at the next write, so there must be something to write.
            while first.poll() is None and second.poll() is None:
                assert len(places) < 20_000, "both runs go on"
                places += produce(kafka.bootstrap, f"{topic_prefix}.events", good(50))
                time.sleep(0.5)
            ended, other = (first, second) if first.poll() is not None else (second, first)
            assert ended.returncode == 3
            places += produce(kafka.bootstrap, f"{topic_prefix}.events", good(50))
            wanted = len(places)
            until(lambda: committed(config, kafka.bootstrap) >= wanted, "the other one goes on")
            other.send_signal(signal.SIGTERM)
            finished(other)
    assert_exactly_once(outcome(config, kafka.bootstrap), set(places))


def test_a_wrong_schema_stops_the_run_before_it_empties_the_topic(
    kafka, cluster, topic_prefix, tmp_path
):
    """Over `max_dead_ratio` the run ends with exit code 5, and nothing of it is committed."""
    topics(kafka.bootstrap, topic_prefix)
    limits = {"max_dead_ratio": 0.5, "window": 500}
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=1, dead_letters=limits)
    bad = [(b"k", b'{"wrong": 1}', None)] * 2000
    produce(kafka.bootstrap, f"{topic_prefix}.events", bad)
    finished(started(path, "--until-caught-up", *cluster), expected=5)
    assert committed(small_job.read(path), kafka.bootstrap) < 2000


def test_a_job_whose_offsets_expired_is_not_started_anew_by_itself(
    kafka, cluster, topic_prefix, tmp_path, capfd
):
    """With a journal and no offsets the run is refused, and the message has the way out."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=1)
    produce(kafka.bootstrap, f"{topic_prefix}.events", good(10))
    finished(started(path, "--until-caught-up", *cluster))
    KafkaAdmin({"bootstrap.servers": kafka.bootstrap}).delete_group(topic_prefix)
    finished(started(path, "--until-caught-up", *cluster), expected=4)
    assert "headrace offsets CONFIG --to" in capfd.readouterr().out


def test_missing_topics_are_named(kafka, cluster, topic_prefix, tmp_path, capfd):
    """Nothing starts where a topic is missing; the message names all of them and the way out."""
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap)
    finished(started(path, *cluster), expected=4)
    said = capfd.readouterr().out
    for name in ("events", "predictions", "dead", "journal"):
        assert f"{topic_prefix}.{name}" in said
    assert "create-topics" in said


def backlog(bootstrap, job, folder, replicas, **settings):
    """A job whose model is slow and what waits for it: its config, and the places of the events."""
    topics(bootstrap, job)
    settings = {
        "slots": 2,
        "replicas": {"max_replicas": replicas, "max_time_lag": 10, "cpus": 0.1},
        "batching": {"max_batch_size": 32},
        "recipe": "slow:recipe",
    } | settings
    path = small_job.make(folder, job, bootstrap, **settings)
    # It takes one replica longer than any cold start: else no order would come in time to help.
    return path, produce(bootstrap, f"{job}.events", good(20_000))


@pytest.mark.long
def test_replicas_are_added_while_records_wait_and_nothing_is_lost(
    kafka, cluster, topic_prefix, tmp_path
):
    """A backlog orders more than there are, and all is scored once and in order."""
    path, places = backlog(kafka.bootstrap, topic_prefix, tmp_path, 3)
    with running(path, tmp_path, "--until-caught-up", *cluster) as process:
        log = tmp_path / "run.log"
        until(lambda: "up from 1 to" in log.read_text(), "replicas are ordered")
        finished(process)
    result = outcome(small_job.read(path), kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)


@pytest.mark.long
def test_feeders_that_score_get_replicas_for_a_backlog_and_give_them_back(
    kafka, cluster, topic_prefix, tmp_path
):
    """Replicas come for what exceeds the feeders' own, score some of it, and go once it is over."""
    path, places = backlog(kafka.bootstrap, topic_prefix, tmp_path, 2, placement="local")
    with running(path, tmp_path, *cluster) as process:
        log, config = tmp_path / "run.log", small_job.read(path)
        until(lambda: "replicas: up from 2 to" in log.read_text(), "replicas are ordered")
        until(lambda: "in their feeders and 2 ready" in log.read_text(), "they are ready")
        until(lambda: committed(config, kafka.bootstrap) == len(places), "all is scored")
        until(lambda: re.search(r"replicas: down from \d to 2", log.read_text()), "they are back")
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)


def test_auto_scores_a_cheap_model_in_the_feeders(kafka, cluster, topic_prefix, tmp_path):
    """No replica is started, and the status says what was compared."""
    topics(kafka.bootstrap, topic_prefix)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, placement="auto", slots=2)
    places = produce(kafka.bootstrap, f"{topic_prefix}.events", good(5000))
    with running(path, tmp_path, *cluster) as process:
        config = small_job.read(path)
        until(lambda: committed(config, kafka.bootstrap) == len(places), "all is scored")
        until(lambda: "a hop to a replica costs" in shown(path, *cluster), "the choice is told")
        run = json.loads(shown(path, *cluster, "--json"))["run"]
        assert (run["placement"]["setting"], run["placement"]["chosen"]) == ("auto", "local")
        assert run["replicas"] == []
        process.send_signal(signal.SIGTERM)
        finished(process)
    assert_exactly_once(outcome(config, kafka.bootstrap), set(places))


@pytest.mark.long
def test_auto_moves_a_slow_model_to_replicas_and_nothing_is_lost(
    kafka, cluster, topic_prefix, tmp_path
):
    """Feeders begin, replicas take over once they are ready, and log and status say why."""
    path, places = backlog(
        kafka.bootstrap,
        topic_prefix,
        tmp_path,
        2,
        placement="auto",
        batching={"max_batch_size": 256},
    )
    with running(path, tmp_path, *cluster) as process:
        log, config = tmp_path / "run.log", small_job.read(path)
        until(lambda: "placement: remote, as a batch of" in log.read_text(), "it has chosen")
        until(lambda: "placement (auto): remote, as a batch" in shown(path, *cluster), "it says so")
        until(lambda: committed(config, kafka.bootstrap) == len(places), "all is scored")
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)
