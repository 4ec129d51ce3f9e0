"""`headrace dlq` against a real broker."""

import io
import json
import os
import subprocess
import sys
import time
from contextlib import closing

import pytest
import small_job
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from jobs.local_broker import create_topics
from pipeline.batch import Partition, Reject
from pipeline.cli import main
from pipeline.dead_letters import dead_letter

SECONDS = 60.0
PARTITIONS = 2
BAD_JSON = Reject(0, "decode", "DecodeError", "is no JSON")
MISSING = Reject(0, "decode", "MissingField", "features is missing")


@pytest.fixture
def job(kafka, topic_prefix, tmp_path, capsys):
    """A job with topics: two partitions of input, one of dead letters."""
    config = small_job.make(tmp_path, topic_prefix, kafka.bootstrap)
    create_topics(
        kafka.bootstrap, {f"{topic_prefix}.events": PARTITIONS, f"{topic_prefix}.dead": 1}
    )
    capsys.readouterr()
    return config


def letter(topic, number, reject, limit=1 << 20):
    """The dead letter of record `number`, which lay at that offset of partition `number % 2`."""
    return dead_letter(
        reject,
        key=b"key-%d" % number,
        value=b"value-%d" % number,
        headers=[("trace", b"%d" % number)],
        partition=Partition(topic, number % PARTITIONS),
        offset=number,
        model=("sum", "1"),
        limit=limit,
    )


def bury(kafka, job, letters):
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for key, value, headers in letters:
        producer.produce(f"{job}.dead", value, key, headers=headers)
    assert producer.flush(SECONDS) == 0


def held(kafka, topic):
    """Stable records as (partition, key, value, headers), in offset order."""
    settings = {
        "bootstrap.servers": kafka.bootstrap,
        "group.id": topic,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 20,
    }
    found, left = [], set(range(PARTITIONS))
    deadline = time.monotonic() + SECONDS
    with closing(Consumer(settings)) as reader:
        reader.assign([TopicPartition(topic, number, 0) for number in left])
        while left and time.monotonic() < deadline:
            for one in reader.consume(5000, 0.1):
                if one.error() is None:
                    found.append((one.partition(), one.key(), one.value(), one.headers()))
                elif one.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(one.partition())
    assert not left
    return found


def test_letters_are_grouped_by_reason(kafka, job, topic_prefix, capsys):
    """Each stage, exception and message has its count, an example's position and its value."""
    assert main(["dlq", "list", str(job)]) == 0
    assert capsys.readouterr().out == "no dead letters\n"
    topic = f"{topic_prefix}.events"
    rejects = [BAD_JSON, MISSING, BAD_JSON]
    bury(kafka, topic_prefix, [letter(topic, n, reject) for n, reject in enumerate(rejects)])
    bury(kafka, topic_prefix, [(None, b"stray", None)])
    assert main(["dlq", "list", str(job), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["waiting"], found["replayed"], found["remembered"]) == (4, 0, False)
    first = found["groups"][0]
    assert first == {
        "reason": {"stage": "decode", "exception": "DecodeError", "message": "is no JSON"},
        "example": f"{topic}/0@0",
        "letter": f"{topic_prefix}.dead/0@0",
        "preview": "value-0",
        "waiting": 2,
        "replayed": 0,
    }
    assert [group["reason"]["stage"] for group in found["groups"]] == [
        "decode",
        "decode",
        "none of headrace",
    ]
    assert main(["dlq", "list", str(job)]) == 0
    said = capsys.readouterr().out
    assert "2 waiting, 0 replayed: decode DecodeError" in said
    assert "features is missing" in said


def test_a_replay_asks_and_sends_each_letter_back_once(
    kafka, job, topic_prefix, capsys, monkeypatch
):
    """Key, value, headers and partition are the record's own; a second replay sends nothing."""
    topic = f"{topic_prefix}.events"
    bury(kafka, topic_prefix, [letter(topic, n, BAD_JSON) for n in range(10)])
    bury(kafka, topic_prefix, [letter(topic, 10, BAD_JSON, limit=3), (None, b"stray", None)])
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert main(["dlq", "replay", str(job)]) == 1
    said = capsys.readouterr().out
    assert f"12 dead letters go back to {topic}, at its end" in said
    assert "their order to later records is lost" in said
    assert held(kafka, topic) == []
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["dlq", "replay", str(job)]) == 0
    said = capsys.readouterr().out
    assert f"10 records sent back to {topic}" in said
    assert "1 letters were passed over" in said
    assert "1 records were passed over" in said
    wanted = [
        (n % PARTITIONS, b"key-%d" % n, b"value-%d" % n, [("trace", b"%d" % n)]) for n in range(10)
    ]
    assert sorted(held(kafka, topic)) == sorted(wanted)
    bury(kafka, topic_prefix, [letter(topic, 11, MISSING)])
    assert main(["dlq", "replay", str(job), "--yes"]) == 0
    said = capsys.readouterr().out
    assert f"1 records sent back to {topic}" in said
    assert "No earlier replay" not in said
    assert len(held(kafka, topic)) == 11
    assert main(["dlq", "replay", str(job), "--yes"]) == 0
    assert "no dead letters wait" in capsys.readouterr().out


def test_a_replay_that_is_killed_goes_on_where_it_stopped(kafka, job, topic_prefix, capsys):
    """SIGKILL between its transactions: after a second one each letter was sent back once."""
    topic, count = f"{topic_prefix}.events", 60_000
    bury(kafka, topic_prefix, (letter(topic, n, BAD_JSON) for n in range(count)))
    command = [sys.executable, "-m", "pipeline.cli", "dlq", "replay", str(job), "--yes"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + SECONDS
        while not held(kafka, topic):
            assert time.monotonic() < deadline
        process.kill()
    before = len(held(kafka, topic))
    assert 0 < before < count
    assert main(["dlq", "replay", str(job), "--yes"]) == 0
    assert f"{count - before:,} records sent back" in capsys.readouterr().out
    assert sorted(key for _, key, _, _ in held(kafka, topic)) == sorted(
        b"key-%d" % n for n in range(count)
    )


def test_at_least_once_says_so(kafka, job, topic_prefix, capsys):
    """Such a job's replay warns that records may go twice, and sends them."""
    job.write_text(job.read_text(encoding="utf-8") + "delivery: at_least_once\n", encoding="utf-8")
    topic = f"{topic_prefix}.events"
    bury(kafka, topic_prefix, [letter(topic, 0, BAD_JSON)])
    assert main(["dlq", "replay", str(job), "--yes"]) == 0
    assert "some may go twice" in capsys.readouterr().out
    assert [key for _, key, _, _ in held(kafka, topic)] == [b"key-0"]
    assert main(["dlq", "replay", str(job), "--yes"]) == 0
    assert "no dead letters wait" in capsys.readouterr().out
