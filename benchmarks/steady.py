"""A producer of events at an even rate, in a process of its own: `python -m benchmarks.steady`."""

import argparse
import time
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from benchmarks.tasks import TASKS
from benchmarks.workload import FLUSH_SECONDS, PARTITIONS

TICK_SECONDS = 0.002
# Events in a row for one partition, as Kafka's default partitioner sends those without keys.
# librdkafka makes a request for each partition: one at a time in turn would make thousands of
# requests a second, and the broker's queue of them would be what is measured.
STICKY_EVENTS = 32


def main() -> None:
    """Produce `--count` events from `--first` on, `--rate` a second; save when each was sent.

    `--times` gets float64 [count], seconds since the epoch, as a NumPy file.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--times", type=Path, required=True)
    chosen = parser.parse_args()
    producer = Producer(
        {"bootstrap.servers": chosen.bootstrap, "compression.type": "lz4", "linger.ms": 1}
    )
    times = np.zeros(chosen.count)
    waiting = TASKS[chosen.task].events(chosen.count, chosen.first)
    began = time.monotonic()
    sent = 0
    while sent < chosen.count:
        due = min(chosen.count, int((time.monotonic() - began) * chosen.rate) + 1)
        for number in range(sent, due):
            key, value, _ = next(waiting)
            times[number] = time.time()
            partition = number // STICKY_EVENTS % PARTITIONS
            producer.produce(chosen.topic, value, key, partition)
        sent = due
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    left = producer.flush(FLUSH_SECONDS)
    if left:
        raise SystemExit(f"the broker took all but {left} events")
    np.save(chosen.times, times)


if __name__ == "__main__":
    main()
