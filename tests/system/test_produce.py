"""Producing to a real broker."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from jobs.local_broker import create_topics
from pipeline.cli import main
from pipeline.errors import ClusterUnfit
from pipeline.produce import produce

SECONDS = 30.0


@pytest.fixture
def topic(kafka, topic_prefix):
    name = f"{topic_prefix}.events"
    create_topics(kafka.bootstrap, {name: 2}, {"max.message.bytes": "2000"})
    return name


def held(kafka, topic):
    """Everything in the two partitions, as (partition, key, value) in offset order."""
    settings = {
        "bootstrap.servers": kafka.bootstrap,
        "group.id": topic,
        "enable.partition.eof": True,
        "enable.auto.commit": False,
    }
    found, left = [], {0, 1}
    deadline = time.monotonic() + SECONDS
    with closing(Consumer(settings)) as reader:
        reader.assign([TopicPartition(topic, number, 0) for number in left])
        while left and time.monotonic() < deadline:
            for message in reader.consume(1000, 0.1):
                if message.error() is None:
                    found.append((message.partition(), message.key(), message.value()))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
    assert not left
    return found


def settings_of(kafka):
    return {"bootstrap.servers": kafka.bootstrap}


def test_a_file_goes_to_the_topic_by_key(kafka, topic, tmp_path, capsys):
    """Each row arrives once, equal keys in one partition and in order, and a line says so."""
    rows = [{"user": f"u{number % 5}", "n": number} for number in range(5000)]
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    arguments = ["produce", str(path), "--topic", topic, "--key", "user", "--limit", "4000"]
    assert main([*arguments, "--bootstrap", kafka.bootstrap]) == 0
    assert f"{topic}: 4,000 records delivered in" in capsys.readouterr().out
    found = held(kafka, topic)
    assert len({(key, number) for number, key, _ in found}) == 5
    for user in range(5):
        mine = [msgspec.json.decode(value) for _, key, value in found if key == b"u%d" % user]
        assert mine == [row for row in rows[:4000] if row["user"] == f"u{user}"]


def test_a_rate_is_kept(kafka, topic):
    """500 records at 500 a second take a second, and progress is told on the way."""
    told = []
    records = ((None, b"%d" % number) for number in range(500))
    summary = produce(records, settings_of(kafka), topic, 500, lambda *now: told.append(now))
    assert (summary.sent, summary.delivered, summary.failed) == (500, 500, 0)
    assert summary.seconds > 0.95
    assert [sent for sent, _ in told] == sorted(sent for sent, _ in told)
    assert 0 < told[0][0] < 500
    assert told[-1][0] == 500


def test_a_record_that_is_refused_is_counted(kafka, topic, tmp_path, capsys):
    """One record over the topic's limit fails the command, and the others arrive."""
    noise = os.urandom(4000).hex()
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b'{"n": 1}\n{"x": "%s"}\n{"n": 2}\n' % noise.encode())
    assert main(["produce", str(path), "--topic", topic, "--bootstrap", kafka.bootstrap]) == 4
    said = capsys.readouterr()
    assert "1 failed: MSG_SIZE_TOO_LARGE" in said.out
    assert "1 of 3 records were not delivered" in said.err
    assert sorted(value for _, _, value in held(kafka, topic)) == [b'{"n": 1}', b'{"n": 2}']


def test_a_missing_topic_is_said_at_once(kafka, topic_prefix):
    """The broker makes no topic by itself, and nothing waits for one."""
    with pytest.raises(ClusterUnfit, match="the broker has no such topic"):
        produce(iter([(None, b"{}")]), settings_of(kafka), topic_prefix)


def test_ctrl_c_delivers_what_was_sent(kafka, topic, tmp_path):
    """An endless generator stops at SIGINT, with every record that was sent in the topic."""
    (tmp_path / "endless.py").write_text(
        "import itertools\ndef rows():\n    return ({'n': n} for n in itertools.count())\n"
    )
    command = [sys.executable, "-m", "pipeline.cli", "produce", "generator:endless:rows"]
    command += ["--topic", topic, "--bootstrap", kafka.bootstrap, "--rate", "2000"]
    root = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + SECONDS
        while len(held(kafka, topic)) < 100:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    found = sorted(msgspec.json.decode(value)["n"] for _, _, value in held(kafka, topic))
    assert found == list(range(len(found)))
    assert f"{len(found):,} records delivered in" in said
