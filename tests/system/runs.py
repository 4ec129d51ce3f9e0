"""What the tests of whole runs share: topics, events, and a run to start, watch and end."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka import Producer

from jobs.local_broker import create_topics
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.errors import Retriable

SECONDS = 120.0
GOOD = b'{"features": [1, 2, 3]}'


def topics(bootstrap, job, partitions=4, predictions=None):
    create_topics(
        bootstrap,
        {
            f"{job}.events": partitions,
            f"{job}.predictions": predictions or partitions,
            f"{job}.dead": 1,
            f"{job}.journal": partitions,
        },
    )


def produce(bootstrap, topic, records, partitions=4):
    """Send (key, value, headers) records round robin; returns their places."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 4 << 20})
    places = []

    def delivered(error, message):
        assert error is None, error
        places.append((message.partition(), message.offset()))

    for number, (key, value, headers) in enumerate(records):
        producer.produce(topic, value, key, number % partitions, delivered, headers=headers or None)
        producer.poll(0)
    assert producer.flush(SECONDS) == 0
    return places


def good(count, start=0):
    return [(b"k%d" % (n % 50), GOOD, None) for n in range(start, start + count)]


def _environment():
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment["PYTHONFAULTHANDLER"] = "1"
    return environment


def started(config, *flags, log=None):
    command = [sys.executable, "-m", "pipeline.cli", "run", str(config), *flags]
    return subprocess.Popen(command, env=_environment(), stdout=log, stderr=subprocess.STDOUT)


def shown(config, *flags):
    """What `headrace status` prints, in a process of its own: it may join a Ray cluster."""
    command = [sys.executable, "-m", "pipeline.cli", "status", str(config), *flags]
    done = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=SECONDS, check=True
    )
    return done.stdout


def finished(process, expected=0):
    try:
        assert process.wait(SECONDS) == expected
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def running(config, tmp_path, *flags):
    """A run in the background that a test ends itself; killed if the test does not."""
    with (tmp_path / "run.log").open("ab") as log:
        process = started(config, *flags, log=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            # Shown where the test fails.
            print((tmp_path / "run.log").read_text(errors="replace"))


def until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


def actors(pid, role):
    """Process ids of the actors of one role below a process: a run's driver, or a Ray head.

    A spare one, which has nothing to do yet, is none of them: feeders are always at something.
    """
    begin = f"ray::{role}." if role == "Feeder" else f"ray::{role}"
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if title.startswith(begin) and ".warm" not in title:
            found.append(child.pid)
    return found


def committed(config, bootstrap):
    """How many offsets are committed; a broker that has just started may not tell yet."""
    try:
        found = KafkaAdmin({"bootstrap.servers": bootstrap}).committed(
            config.group, config.input.topic
        )
    except Retriable:
        return 0
    return sum(item.offset for item in found.values())
