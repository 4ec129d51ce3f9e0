"""What others do to a job's group, topics and files: refused with the way out, or of no effect."""

import contextlib
import shutil

import pyarrow.parquet as pq
import pytest
import small_job
import yaml
import zombie
from audit import stable
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from harness import (
    PARTITIONS,
    PATIENCE_SECONDS,
    Run,
    Stream,
    committed,
    feed,
    make_job,
    run_of,
    until,
)
from sampler import Sampler
from verdict import folder_of, judged

from jobs.local_broker import create_topics
from pipeline.build import build_archiver
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.job import prepare

RATE = 400.0


def caught_up(stage, config, folder, name, expected=0):
    """Run until caught up; give what it said."""
    run = Run(stage, config, folder / f"{name}.log")
    run.start("--until-caught-up")
    try:
        run.wait(expected)
    finally:
        run.kill()
    return run.said()


@pytest.mark.long
def test_a_strangers_open_transaction_is_named_and_waited_for(theatre, topic_prefix, tmp_path):
    """A start says what holds the offsets open, and goes on once that is over."""
    path = make_job(theatre, tmp_path, topic_prefix, placement="local")
    config = small_job.read(path)
    feed(theatre, config.input.topic, 500)
    caught_up(theatre, path, tmp_path, "first")
    stranger = Producer(
        {"bootstrap.servers": theatre.direct, "transactional.id": f"{topic_prefix}-stranger"}
    )
    stranger.init_transactions(PATIENCE_SECONDS)
    stranger.begin_transaction()
    with contextlib.closing(
        Consumer({"bootstrap.servers": theatre.direct, "group.id": config.group})
    ) as member:
        stranger.send_offsets_to_transaction(
            [TopicPartition(config.input.topic, 0, 1)],
            member.consumer_group_metadata(),
            PATIENCE_SECONDS,
        )
    feed(theatre, config.input.topic, 500)
    with run_of(theatre, path, tmp_path) as run:
        until(lambda: "stay unstable" in run.log.read_text(), "the start says what it waits for")
        assert f"transaction '{topic_prefix}-stranger' of producer" in run.log.read_text()
        stranger.abort_transaction(PATIENCE_SECONDS)
        until(lambda: run.check() or committed(theatre, config) >= 1000, "the run goes on")
        run.stop()
    judged(theatre.direct, config)


def recreate(stage, topic):
    """Delete a topic and make it again."""
    KafkaAdmin({"bootstrap.servers": stage.direct}).delete(topic)
    until(
        lambda: topic not in AdminClient({"bootstrap.servers": stage.direct}).list_topics().topics,
        "the topic is gone",
    )
    create_topics(stage.direct, {topic: PARTITIONS})


@pytest.mark.long
def test_an_input_topic_that_was_made_again_is_refused(theatre, topic_prefix, tmp_path):
    """With the topic the broker forgot its offsets: the run ends at its start and says so."""
    path = make_job(theatre, tmp_path, topic_prefix, placement="local")
    config = small_job.read(path)
    feed(theatre, config.input.topic, 500)
    caught_up(theatre, path, tmp_path, "first")
    before = len(stable(theatre.direct, config.output.topic))
    recreate(theatre, config.input.topic)
    feed(theatre, config.input.topic, 1000)
    said = caught_up(theatre, path, tmp_path, "second", expected=4)
    assert "has no offsets" in said
    assert len(stable(theatre.direct, config.output.topic)) == before


@pytest.mark.long
def test_an_input_topic_that_is_made_again_under_a_run_ends_it(theatre, topic_prefix, tmp_path):
    """Also where the new one has grown beyond the old offsets: none of its records is scored."""
    path = make_job(theatre, tmp_path, topic_prefix, placement="local")
    config = small_job.read(path)
    feed(theatre, config.input.topic, 500)
    with run_of(theatre, path, tmp_path) as run:
        until(lambda: run.check() or committed(theatre, config) >= 500, "the run has scored")
        before = len(stable(theatre.direct, config.output.topic))
        recreate(theatre, config.input.topic)
        feed(theatre, config.input.topic, 1000)
        run.wait(expected=4)
    assert len(stable(theatre.direct, config.output.topic)) == before


@pytest.mark.long
def test_records_that_retention_removed_before_they_were_scored_are_not_skipped(
    theatre, topic_prefix, tmp_path
):
    """The run is refused with the way out, and no offset moves."""
    path = make_job(theatre, tmp_path, topic_prefix, placement="local")
    config = small_job.read(path)
    feed(theatre, config.input.topic, 500)
    caught_up(theatre, path, tmp_path, "first")
    feed(theatre, config.input.topic, 500)
    admin = AdminClient({"bootstrap.servers": theatre.direct})
    gone = [TopicPartition(config.input.topic, number, 200) for number in range(PARTITIONS)]
    for future in admin.delete_records(gone).values():
        future.result(PATIENCE_SECONDS)
    said = caught_up(theatre, path, tmp_path, "second", expected=4)
    assert "retention" in said
    assert committed(theatre, config) == 500


@pytest.mark.long
def test_of_two_runs_that_start_at_once_one_is_left(theatre, topic_prefix, tmp_path):
    """The other one ends with exit code 3; they do not fence each other for ever."""
    path = make_job(theatre, tmp_path, topic_prefix, placement="local")
    config = small_job.read(path)
    stream = Stream(theatre.direct, config.input.topic, RATE)
    stream.start()
    runs = [Run(theatre, path, tmp_path / f"{number}.log") for number in range(2)]
    try:
        for run in runs:
            run.start()
        until(
            lambda: any(run.process.poll() is not None for run in runs), "one of the two has ended"
        )
        ended, left = sorted(runs, key=lambda run: run.process.poll() is None)
        ended.wait(expected=3)
        before = committed(theatre, config)
        until(lambda: left.check() or committed(theatre, config) > before, "the other one goes on")
        stream.stop()
        total = len(stable(theatre.direct, config.input.topic))
        until(lambda: left.check() or committed(theatre, config) >= total, "all is committed")
        left.stop()
    finally:
        stream.stop()
        for run in runs:
            run.kill()
    judged(theatre.direct, config)


def scored(stage, config, feeder, total):
    """Have the feeder commit so many records."""
    until(lambda: feeder.turn(zombie.TURN) and committed(stage, config) >= total, "it is committed")


def archived(archiver, total):
    """Have the archiver make files of so many records."""
    until(lambda: sum(archiver.turn(0.3).rolled.values()) >= total, "all is archived")


def test_two_archivers_at_once_make_the_same_files(theatre, topic_prefix, tmp_path):
    """Whoever is slower replaces a file by its equal, and moves the progress back without harm."""
    path = make_job(
        theatre, tmp_path, topic_prefix, placement="local", slots=1, roll={"interval_seconds": 0.3}
    )
    config = small_job.read(path)
    zombie.open_job(config, theatre.direct)
    job = prepare(config)
    feeder = zombie.claim(config)
    archivers = [build_archiver(job, 1)]
    sampler = Sampler(theatre.direct, (config.output.topic,), folder_of(config))
    sampler.start()
    for part in range(1, 7):
        feed(theatre, config.input.topic, 200)
        scored(theatre, config, feeder, 200 * part)
        if part == 2:
            # One that starts while a file is in the making.
            archivers.append(build_archiver(job, 1))
        for archiver in archivers[: 1 + part % 2]:
            archiver.turn(0.2)
    zombie.drain(feeder)
    for archiver in archivers:
        archived(archiver, 1200)
        archiver.close()
    sampler.stop()
    judged(theatre.direct, config, sampler)


@pytest.mark.long
def test_a_restart_with_another_schema_and_model_keeps_each_file_to_one(
    theatre, topic_prefix, tmp_path
):
    """A run that was killed before its rows were archived is followed by one with a new column."""
    rolls = {"interval_seconds": 3600}
    path = make_job(theatre, tmp_path, topic_prefix, placement="local", roll=rolls)
    config = small_job.read(path)
    feed(theatre, config.input.topic, 500)
    with run_of(theatre, path, tmp_path) as run:
        until(lambda: run.check() or committed(theatre, config) >= 500, "the run has scored")
        run.kill()
    shutil.copytree(config.model / "1", config.model / "2")
    changed = yaml.safe_load(path.read_text()) | {
        "input": {"pass_through": {"x": "string"}},
        "output": {"parquet": str(tmp_path / "out"), "compression": "snappy"},
    }
    path.write_text(yaml.safe_dump(changed))
    feed(theatre, config.input.topic, 500)
    caught_up(theatre, path, tmp_path, "second")
    judged(theatre.direct, config)
    kinds = set()
    for file in folder_of(config).glob("date=*/*.parquet"):
        rows = pq.ParquetFile(file).read()
        (version,) = set(rows["model_version"].to_pylist())
        kinds.add((version, "x" in rows.column_names))
    assert kinds == {("1", False), ("2", True)}
