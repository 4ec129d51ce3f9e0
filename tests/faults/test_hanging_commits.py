"""A feeder whose commits hang at full load: it stops consuming, and its memory stays flat."""

import time

import psutil
import pytest
import small_job
from harness import committed, feed, make_job, run_of, until
from proxy import END_TXN, Rule
from verdict import judged

RECORDS = 250_000
VALUE_BYTES = 400
HANG_SECONDS = 30.0
# Twice a commit's rows as records, rows and predictions, the consumer's queue, and what an
# allocator keeps of them; the backlog alone is as much, before anything is made of it.
ALLOWED_BYTES = RECORDS * VALUE_BYTES


@pytest.mark.long
def test_while_commits_hang_memory_stays_flat(theatre, topic_prefix, tmp_path):
    """For 30 s no commit is answered; then the run goes on, and everything is answered once."""
    path = make_job(
        theatre,
        tmp_path,
        topic_prefix,
        placement="local",
        slots=1,
        batching={"max_batch_size": 8192},
        commit={"interval_ms": 200, "max_rows": 32768},
    )
    config = small_job.read(path)
    feed(theatre, config.input.topic, RECORDS, padding=VALUE_BYTES)
    with run_of(theatre, path, tmp_path) as run:
        until(lambda: run.check() or committed(theatre, config) > 0, "it runs at full load")
        memory = [resident(pid) for pid in run.actors("Feeder")]
        with theatre.proxy.ruling(Rule(END_TXN, "lose the request", times=1_000_000)) as rule:
            until(rule.met.is_set, "a commit hangs")
            ending = time.monotonic() + HANG_SECONDS
            while time.monotonic() < ending:
                memory += [resident(pid) for pid in run.actors("Feeder")]
                time.sleep(0.5)
        assert committed(theatre, config) < RECORDS, "there was no load"
        until(lambda: run.check() or committed(theatre, config) >= RECORDS, "all is committed")
        run.stop()
    print(f"resident while commits hang: {memory[0] >> 20} to {max(memory) >> 20} MiB")
    assert max(memory) < memory[0] + ALLOWED_BYTES
    judged(theatre.direct, config)


def resident(pid: int) -> int:
    """Bytes that a process holds, 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
