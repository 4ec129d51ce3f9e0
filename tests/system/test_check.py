"""`headrace check` and `headrace create-topics` against real brokers."""

import os
from contextlib import ExitStack

import pytest
import small_job
from confluent_kafka.admin import AdminClient

from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import create_topics, embedded
from pipeline.check import KAFKA_4_3, carries_exactly_once, check
from pipeline.cli import main
from pipeline.edges import kafka_python


@pytest.fixture
def job(kafka, topic_prefix, tmp_path):
    return small_job.make(tmp_path, topic_prefix, kafka.bootstrap)


def topics(kafka):
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    return admin.list_topics(timeout=10).topics


def mistakes(config):
    """The mistakes of a config, by setting."""
    return {one.setting: str(one) for one in check(config, os.environ).mistakes}


def test_what_create_topics_makes_is_free_of_mistakes(kafka, job, topic_prefix, tmp_path, capsys):
    """Missing topics are named, made once, and the check leaves no trace of its own."""
    wanted = ("input.topic", "output.topic", "dead_letters.topic", "journal.topic")
    found = mistakes(job)
    assert tuple(found) == wanted
    assert all(
        "the broker has no such topic. `headrace create-topics" in one for one in found.values()
    )
    assert main(["create-topics", str(job), "--partitions", "3"]) == 0
    assert f"{topic_prefix}.journal made with 3 partitions" in capsys.readouterr().out
    assert main(["create-topics", str(job), "--partitions", "9"]) == 0
    assert f"{topic_prefix}.events is there already, with 3 partitions" in capsys.readouterr().out
    assert main(["check", str(job)]) == 0
    said = capsys.readouterr().out
    for fact in ("all is well", "version 1", "3 features", "3 partitions", "slots"):
        assert fact in said
    assert {name for name in topics(kafka) if name.startswith(topic_prefix)} == {
        f"{topic_prefix}.{name}" for name in ("events", "predictions", "dead", "journal")
    }
    assert not (tmp_path / "out").exists()


def test_every_mistake_of_the_topics_is_found(kafka, topic_prefix, tmp_path):
    """Limits, retention, policy and partitions are looked at in one run."""
    config = small_job.make(tmp_path, topic_prefix, kafka.bootstrap, slots=3)
    create_topics(kafka.bootstrap, {f"{topic_prefix}.events": 3}, {"max.message.bytes": "2000000"})
    create_topics(
        kafka.bootstrap, {f"{topic_prefix}.predictions": 3}, {"max.message.bytes": "9999"}
    )
    create_topics(kafka.bootstrap, {f"{topic_prefix}.dead": 1})
    journal = {"cleanup.policy": "compact,delete", "retention.ms": "3600000"}
    create_topics(kafka.bootstrap, {f"{topic_prefix}.journal": 2}, journal)
    said = [str(one) for one in check(config, os.environ).mistakes]
    for part in (
        "takes records of 9,999 bytes at most",
        "Set its max.message.bytes to 2065536",
        "has cleanup.policy=compact,delete",
        "keeps records for 1.0 hours",
        "has 2 partitions, and the job has 3 slots",
    ):
        assert sum(part in one for one in said) == 1, (part, said)
    assert len(said) == 5


def test_a_model_a_folder_and_a_broker_are_looked_at_together(topic_prefix, tmp_path):
    """Mistakes of three kinds are shown at once, each under its setting."""
    config = small_job.make(tmp_path, topic_prefix, "127.0.0.1:1")
    (tmp_path / "models" / topic_prefix / "1" / "model.onnx").write_bytes(b"other")
    (tmp_path / "out").write_text("a file")
    found = mistakes(config)
    assert {"kafka.bootstrap.servers", "output.parquet"} < set(found)
    assert "sha256" in str(found)
    assert len(found) == 3


def test_the_probe_tells_a_broker_without_transactions(topic_prefix, tmp_path):
    """Tansu forgets the metadata of offsets: exactly_once is refused there, with the way out."""
    with ExitStack() as stack:
        try:
            tansu = stack.enter_context(embedded())
        except BrokerUnavailable as error:
            pytest.skip(str(error))
        config = small_job.make(tmp_path, topic_prefix, tansu.bootstrap)
        assert main(["create-topics", str(config)]) == 0
        found = mistakes(config)
        assert set(found) == {"delivery"}
        assert "at_least_once, or use Apache Kafka" in found["delivery"]
        text = config.read_text(encoding="utf-8") + "delivery: at_least_once\n"
        config.write_text(text, encoding="utf-8")
        assert mistakes(config) == {}


def test_kafka_carries_exactly_once(job):
    """The probe finds nothing wrong with Apache Kafka, also the second time."""
    config = small_job.read(job)
    assert carries_exactly_once(config) is None
    assert carries_exactly_once(config) is None


def test_a_broker_of_kafka_4_3_is_warned_of(kafka, job, monkeypatch, capsys):
    """It loses commits; these tests' own broker tells a release, and is none of them."""
    assert main(["create-topics", str(job), "--partitions", "3"]) == 0
    assert 0 < kafka_python.metadata_version({"bootstrap.servers": kafka.bootstrap}) != KAFKA_4_3
    assert check(job, os.environ).warnings == ()
    monkeypatch.setattr(kafka_python, "metadata_version", lambda _: KAFKA_4_3)
    assert main(["check", str(job)]) == 0
    assert "beware: the broker is of Kafka 4.3" in capsys.readouterr().err
