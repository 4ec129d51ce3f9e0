"""The plan of Kafka's own transactions test, with a run of ours as the copying client.

tests/kafkatest/tests/core/transactions_test.py there: 100,000 records are copied while the broker
or the clients are bounced, hard and clean, each three times; then input and output are compared.
Its clients are message copiers, ours are feeders, replicas, the archiver and the driver.
"""

import os
import random
import signal

import psutil
import pytest
import small_job
from audit import stable
from harness import Run, Stream, committed, make_job, run_of, until
from sampler import Sampler
from verdict import folder_of, judged

RECORDS = int(os.environ.get("HEADRACE_PLAN_RECORDS", "100000"))
SECONDS = 120.0
BOUNCES = 3


def bounce_client(run: Run, role: str, clean: bool) -> None:
    """End each process of the role; a clean end of a driver is SIGTERM, of an actor SIGTERM too."""
    number = signal.SIGTERM if clean else signal.SIGKILL
    if role == "driver":
        run.process.send_signal(number)
        run.wait(expected=0 if clean else -signal.SIGKILL)
        run.start()
        return
    title = role.capitalize()
    until(lambda: run.check() or run.actors(title), f"there is a {role}")
    for pid in run.actors(title):
        try:
            psutil.Process(pid).send_signal(number)
        except psutil.NoSuchProcess:
            continue


def bounce_broker(stage, clean: bool) -> None:
    """End the broker and start it again on its ports and its data."""
    process = stage.broker.process
    process.stop() if clean else process.kill()
    process.start()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("clean", [False, True], ids=["hard", "clean"])
def test_the_plan_of_kafkas_transactions_test(theatre, topic_prefix, tmp_path, tally, clean):
    """All records are copied once, in order, and nothing uncommitted is read on the way."""
    path = make_job(theatre, tmp_path, topic_prefix, commit={"interval_ms": 200, "max_rows": 4096})
    config = small_job.read(path)
    # It goes on for as long as the bounces take, and to as many records at least.
    stream = Stream(theatre.direct, config.input.topic, RECORDS / SECONDS)
    sampler = Sampler(theatre.direct, (config.output.topic,), folder_of(config))
    chance = random.Random(BOUNCES)
    with run_of(theatre, path, tmp_path) as run:
        stream.start()
        sampler.start()
        until(lambda: run.check() or committed(theatre, config) > 0, "the run has begun")
        for _ in range(BOUNCES):
            roles = ["feeder", "replica", "archiver", "driver", "broker"]
            chance.shuffle(roles)
            for role in roles:
                if role == "broker":
                    bounce_broker(theatre, clean)
                else:
                    bounce_client(run, role, clean)
                tally[role, f"{'clean' if clean else 'hard'} bounce"] += 1
                before = committed(theatre, config)
                until(
                    lambda before=before: run.check() or committed(theatre, config) > before,
                    "the run goes on",
                )
        until(
            lambda: run.check() or committed(theatre, config) >= RECORDS,
            "all is committed",
            seconds=2 * SECONDS,
        )
        stream.stop()
        total = len(stable(theatre.direct, config.input.topic))
        until(lambda: run.check() or committed(theatre, config) >= total, "all is committed")
        run.stop()
    sampler.stop()
    judged(theatre.direct, config, sampler)
