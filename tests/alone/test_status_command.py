"""`headrace status` as far as Kafka tells; a run's own part is in test_submit."""

import json

import pytest
import small_job
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from runs import shown, until

from jobs.local_broker import create_topics
from pipeline.cli import main

SECONDS = 60.0


@pytest.fixture
def job(kafka, topic_prefix, tmp_path):
    """A job of two partitions with ten records in the first one, of which four are committed."""
    config = small_job.make(tmp_path, topic_prefix, kafka.bootstrap)
    topic = f"{topic_prefix}.events"
    create_topics(kafka.bootstrap, {topic: 2})
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for _ in range(10):
        producer.produce(topic, b"{}", partition=0)
    assert producer.flush(SECONDS) == 0
    commit(kafka, topic_prefix, TopicPartition(topic, 0, 4))
    return config


def commit(kafka, group, offset):
    """Commit an offset, again while a broker that has just started makes the topic of its groups."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    asked = ConsumerGroupTopicPartitions(group, [offset])

    def taken():
        done = admin.alter_consumer_group_offsets([asked])[group].result(SECONDS)
        return all(item.error is None for item in done.topic_partitions)

    until(taken, "the offset is committed")


def test_offsets_and_lag_need_no_run(kafka, job, topic_prefix):
    """Kafka alone tells where each partition stands, and what was never committed has no lag."""
    found = json.loads(shown(job, "--json"))
    assert set(found) == {"job", "at", "topic", "group", "lag", "partitions", "run", "note"}
    assert found["partitions"] == [
        {"partition": 0, "committed": 4, "end": 10, "lag": 6},
        {"partition": 1, "committed": None, "end": 0, "lag": None},
    ]
    assert found["lag"] is None
    assert found["run"] is None
    assert "only Kafka was asked" in found["note"]
    commit(kafka, topic_prefix, TopicPartition(f"{topic_prefix}.events", 1, 0))
    said = shown(job)
    assert "6 records" in said
    assert "only Kafka was asked" in said


def test_a_named_cluster_must_be_there(job, capsys):
    """--address where nothing listens is an error with the way out, not a silent half."""
    assert main(["status", str(job), "--address", "127.0.0.1:1"]) == 4
    assert "--address = '127.0.0.1:1': nothing answers there" in capsys.readouterr().err
