"""Ray Data in a loop: a bounded read of what is new, scored and written, then the offsets.

Guarantee: at least once, to Kafka and to Parquet. Offsets are committed to the group once both
are written; what an interrupted round had written is written again by the next.

Its `write_kafka` turns each row into a dictionary and that into JSON, keeps no bytes as they are,
and would need the round's rows a second time beside `write_parquet`. So the scoring task sends the
predictions itself, and read, score and write are one fused task a partition.
"""

import logging
import signal
import threading
import time

import ray
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from benchmarks.contender import Run
from benchmarks.options import from_options
from benchmarks.peers.ray_data_task import scored

# Of each partition, in one round.
ROUND_RECORDS = 50_000
BATCH_RECORDS = 4_000
BROKER_SECONDS = 30.0
IDLE_SECONDS = 0.02
RETRY_SECONDS = 0.2
STARTING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}


def main() -> None:
    """Score rounds until all records are done, or until SIGTERM."""
    run = from_options(main.__doc__)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    consumer = Consumer({"bootstrap.servers": run.bootstrap, "group.id": run.name})
    found = consumer.list_topics(run.events, BROKER_SECONDS).topics[run.events].partitions
    starts = committed(consumer, run.events, list(found))
    while not stopping.is_set() and sum(starts.values()) != run.records:
        ends = {
            number: min(start + ROUND_RECORDS, end(consumer, run.events, number))
            for number, start in starts.items()
        }
        if ends == starts:
            stopping.wait(IDLE_SECONDS)
            continue
        score_round(run, starts, ends)
        consumer.commit(
            offsets=[TopicPartition(run.events, *place) for place in ends.items()],
            asynchronous=False,
        )
        starts = ends
    consumer.close()


def committed(consumer: Consumer, topic: str, partitions: list[int]) -> dict[int, int]:
    """Where each partition goes on."""
    asked = [TopicPartition(topic, number) for number in partitions]
    deadline = time.monotonic() + BROKER_SECONDS
    while True:
        try:
            answered = consumer.committed(asked, BROKER_SECONDS)
        except KafkaException as error:
            # A new broker first has to make its topic of offsets.
            if error.args[0].code() not in STARTING or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return {one.partition: max(one.offset, 0) for one in answered}


def end(consumer: Consumer, topic: str, partition: int) -> int:
    """The offset after a partition's last record."""
    _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), BROKER_SECONDS)
    return int(high)


def score_round(run: Run, starts: dict[int, int], ends: dict[int, int]) -> None:
    """Read, score and write one range of each partition."""
    events = ray.data.read_kafka(
        run.events,
        bootstrap_servers=run.bootstrap,
        start_offset={run.events: starts},
        end_offset={run.events: ends},
        override_num_blocks=len(starts),
    )
    rows = events.map_batches(
        scored, batch_size=BATCH_RECORDS, batch_format="pyarrow", fn_kwargs={"run": run}
    )
    rows.write_parquet(str(run.parquet), compression="zstd")


if __name__ == "__main__":
    main()
