"""Slots, partitions and offsets that change: between runs, under a run, and by command."""

import json
import os
import signal

import pytest
import small_job
import yaml
from audit import assert_exactly_once, assert_ordered, outcome
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from runs import committed, finished, good, produce, running, started, topics, until

from pipeline.cli import main
from pipeline.edges.kafka.admin import KafkaAdmin

PARTITIONS = 6
# Longer than a test: what a run that is killed has scored stays without a boundary.
NO_ROLLS = {"roll": {"interval_seconds": 3600}}


def change(path, **settings):
    """Write other settings into a config."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | settings
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def feed(kafka, job, count, partitions=PARTITIONS):
    return produce(kafka.bootstrap, f"{job}.events", good(count), partitions)


@pytest.mark.parametrize(
    "slots", [(3, 2), pytest.param((3, 2, 5), marks=pytest.mark.long)], ids=["3-2", "3-2-5"]
)
def test_slots_become_fewer_and_more_and_nothing_is_lost(
    kafka, cluster, topic_prefix, tmp_path, slots
):
    """Each run but the last is killed with rows that no boundary covers; the next hands over."""
    *killed, last = slots
    topics(kafka.bootstrap, topic_prefix, PARTITIONS)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, placement="local", **NO_ROLLS)
    config, places = small_job.read(path), []
    for number in killed:
        change(path, slots=number)
        places += feed(kafka, topic_prefix, 3000)
        with running(path, tmp_path, *cluster) as process:
            wanted = len(places)
            until(
                lambda wanted=wanted: committed(config, kafka.bootstrap) >= wanted,
                f"{number} slots have scored",
            )
            process.kill()
    places += feed(kafka, topic_prefix, 1000)
    change(path, slots=last)
    finished(started(path, "--until-caught-up", *cluster))
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)
    stored = KafkaAdmin(config.kafka).committed(config.group, config.input.topic)
    metadata = [json.loads(item.metadata) for item in stored.values()]
    assert {(one["layout"], one["slots"]) for one in metadata} == {(len(slots), last)}


@pytest.mark.long
def test_without_fences_slots_change_once_the_job_has_drained(
    kafka, cluster, topic_prefix, tmp_path
):
    """Under at_least_once a run that ended in order leaves all of it in Parquet to be handed over."""
    topics(kafka.bootstrap, topic_prefix, PARTITIONS)
    path = small_job.make(
        tmp_path,
        topic_prefix,
        kafka.bootstrap,
        slots=3,
        placement="local",
        delivery="at_least_once",
    )
    places = []
    for slots in (3, 2):
        change(path, slots=slots)
        places += feed(kafka, topic_prefix, 600)
        finished(started(path, "--until-caught-up", *cluster))
    assert_exactly_once(outcome(small_job.read(path), kafka.bootstrap), set(places))


@pytest.mark.long
def test_partitions_that_are_added_under_a_run_are_taken_in(kafka, cluster, topic_prefix, tmp_path):
    """From their log's start, once the predictions' topic has as many; no feeder is replaced."""
    topics(kafka.bootstrap, topic_prefix, 4)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=3, placement="local")
    config = small_job.read(path)
    places = feed(kafka, topic_prefix, 400, 4)
    with running(path, tmp_path, *cluster) as process:
        until(lambda: committed(config, kafka.bootstrap) >= 400, "the run has scored")
        admin = KafkaAdmin(config.kafka)
        for topic in (config.output.topic, config.input.topic):
            admin.grow(topic, PARTITIONS)
            until(
                lambda topic=topic: admin.topics([topic])[topic].partitions == PARTITIONS,
                f"{topic} has grown",
            )
        places += feed(kafka, topic_prefix, 600)
        until(lambda: committed(config, kafka.bootstrap) >= 1000, "new partitions are scored")
        process.send_signal(signal.SIGTERM)
        finished(process)
    result = outcome(config, kafka.bootstrap)
    assert_exactly_once(result, set(places))
    assert_ordered(result)
    assert {partition for partition, _ in result.predictions} == set(range(PARTITIONS))
    assert "is replaced" not in (tmp_path / "run.log").read_text()


def test_offsets_are_set_anew_under_a_run_which_ends(
    kafka, cluster, topic_prefix, tmp_path, capsys
):
    """Back to the start: all is scored once more, in a generation that the journal tells of."""
    topics(kafka.bootstrap, topic_prefix, 4)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2, placement="local")
    config = small_job.read(path)
    places = feed(kafka, topic_prefix, 400, 4)
    with running(path, tmp_path, *cluster) as process:
        until(lambda: committed(config, kafka.bootstrap) >= 400, "the run has scored")
        assert main(["offsets", str(path), "--to", "earliest", "--yes"]) == 0
        places += feed(kafka, topic_prefix, 4, 4)
        finished(process, expected=3)
    said = capsys.readouterr().out
    assert "4 of 4 partitions" in said
    finished(started(path, "--until-caught-up", *cluster))
    result = outcome(config, kafka.bootstrap)
    assert sorted(result.predictions) == sorted(places + places[:400])
    assert sorted(result.parquet) == sorted(result.predictions)


@pytest.mark.long
def test_a_gap_is_skipped_only_when_it_is_asked_for(
    kafka, cluster, topic_prefix, tmp_path, capfd, monkeypatch
):
    """Retention has removed records: refused with the command, asked about, and gone on from."""
    topics(kafka.bootstrap, topic_prefix, 4)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2, placement="local")
    config = small_job.read(path)
    places = feed(kafka, topic_prefix, 400, 4)
    finished(started(path, "--until-caught-up", *cluster))
    places += feed(kafka, topic_prefix, 400, 4)
    gone = TopicPartition(config.input.topic, 1, 150)
    # Held by a name: a client that is collected answers nobody.
    admin = AdminClient(dict(config.kafka))
    for future in admin.delete_records([gone]).values():
        future.result(30)
    finished(started(path, "--until-caught-up", *cluster), expected=4)
    assert "headrace offsets CONFIG --to skip-gap" in capfd.readouterr().out
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123 - a device
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["offsets", str(path), "--to", "skip-gap"]) == 1
    assert "nothing was changed" in capfd.readouterr().out
    assert main(["offsets", str(path), "--to", "skip-gap", "--yes"]) == 0
    assert "1 of 4 partitions" in capfd.readouterr().out
    finished(started(path, "--until-caught-up", *cluster))
    lost = {(1, offset) for offset in range(100, 150)}
    assert_exactly_once(outcome(config, kafka.bootstrap), set(places) - lost)


@pytest.mark.long
def test_offsets_of_kafkas_own_tool_get_their_metadata_back(
    kafka, cluster, topic_prefix, tmp_path, capfd
):
    """It wipes what the job keeps beside them: the next start says so and how to go on from them."""
    topics(kafka.bootstrap, topic_prefix, 4)
    path = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=2, placement="local")
    config = small_job.read(path)
    places = feed(kafka, topic_prefix, 400, 4)
    finished(started(path, "--until-caught-up", *cluster))
    tool = Consumer({**config.kafka, "group.id": config.group})
    wiped = [TopicPartition(config.input.topic, number, 90) for number in range(4)]
    tool.commit(offsets=wiped, asynchronous=False)
    tool.close()
    finished(started(path, "--until-caught-up", *cluster), expected=4)
    assert "headrace offsets CONFIG --to skip-gap" in capfd.readouterr().out
    assert main(["offsets", str(path), "--to", "skip-gap", "--yes"]) == 0
    finished(started(path, "--until-caught-up", *cluster))
    again = [(number, offset) for number in range(4) for offset in range(90, 100)]
    result = outcome(config, kafka.bootstrap)
    assert sorted(result.predictions) == sorted(places + again)
    assert sorted(result.parquet) == sorted(result.predictions)
