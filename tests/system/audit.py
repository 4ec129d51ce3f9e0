"""Counts a job's output with clients that the writing path does not use: kafka-python, pyarrow."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.dataset as ds
from kafka import KafkaConsumer, TopicPartition

from pipeline.config import Config

IDLE_MS = 20_000


@dataclass(slots=True)
class Outcome:
    """What a `read_committed` reader sees: `(partition, offset)` of each input record, in order."""

    predictions: list[tuple[int, int]] = field(default_factory=list)
    by_key: dict[bytes, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    same_partition: bool = True
    dead: list[tuple[int, int]] = field(default_factory=list)
    reasons: dict[tuple[int, int], str] = field(default_factory=dict)
    letters: dict[tuple[int, int], object] = field(default_factory=dict)
    parquet: list[tuple[int, int]] = field(default_factory=list)


def stable(bootstrap: str, topic: str) -> list:
    """Every committed record of a topic, partition by partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
    )
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        found = defaultdict(list)
        while any(consumer.position(p) < ends[p] for p in partitions):
            for partition, records in consumer.poll(timeout_ms=500).items():
                found[partition].extend(records)
        return [record for partition in partitions for record in found[partition]]
    finally:
        consumer.close()


def outcome(config: Config, bootstrap: str) -> Outcome:
    """Read predictions, dead letters and Parquet."""
    result = Outcome()
    for record in stable(bootstrap, config.output.topic):
        place = tuple(json.loads(record.value)["source"])
        result.predictions.append(place)
        result.by_key[record.key].append(place)
        result.same_partition &= record.partition == place[0]
    for record in stable(bootstrap, config.dead_letters.topic):
        headers = dict(record.headers)
        place = (
            int(headers["__dlq.errors.partition"]),
            int(headers["__dlq.errors.offset"]),
        )
        result.dead.append(place)
        result.letters[place] = record
        stage, name = headers["__dlq.errors.stage"], headers["__dlq.errors.exception"]
        result.reasons[place] = f"{stage.decode()}:{name.decode()}"
    folder = Path(config.output.parquet) / config.job
    table = ds.dataset(folder, partitioning="hive").to_table(columns=["partition", "offset"])
    places = zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True)
    result.parquet.extend(places)
    return result


def assert_exactly_once(result: Outcome, wanted: set[tuple[int, int]]) -> None:
    """Each wanted input record once in predictions or dead letters, and predictions in Parquet."""
    answered = result.predictions + result.dead
    assert len(answered) == len(set(answered)), "an input record was answered twice"
    assert set(answered) == wanted
    assert sorted(result.parquet) == sorted(result.predictions)


def assert_ordered(result: Outcome) -> None:
    """Predictions stand in the order of their input, partition by partition."""
    assert result.same_partition
    last: dict[int, int] = {}
    for partition, offset in result.predictions:
        assert offset > last.get(partition, -1)
        last[partition] = offset
