"""The control plane: topics, ends of logs, and a group's offsets without waiting for any."""

import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from pipeline import layout as layouts
from pipeline.batch import Partition
from pipeline.edges.kafka.clients import common, consumer_settings, translate, translating
from pipeline.edges.kafka.offsets import committed, stored
from pipeline.errors import ClusterUnfit
from pipeline.topology import Topic

CALL_SECONDS = 10.0
LOOK_SECONDS = 0.05


class KafkaAdmin:
    """Questions and orders to the cluster, each with a deadline of `CALL_SECONDS`."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._admin = AdminClient(common(settings))

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Those of the named topics that exist. Raises Retriable, ClusterUnfit."""
        wanted = list(names)
        with translating("describing topics"):
            described = self._admin.describe_topics(
                TopicCollection(wanted), request_timeout=CALL_SECONDS
            )
        found = {}
        for name, future in described.items():
            try:
                answer = future.result()
            except KafkaException as problem:
                if problem.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                raise translate(problem.args[0], f"describing topic {name}") from problem
            found[name] = Topic(
                name, str(answer.topic_id), len(answer.partitions), self._topic_settings(name)
            )
        return found

    def _topic_settings(self, name: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, name)
        with translating(f"describing the settings of topic {name}"):
            future = self._admin.describe_configs([resource], request_timeout=CALL_SECONDS)
            entries = future[resource].result()
        return {key: entry.value for key, entry in entries.items() if entry.value is not None}

    def create(self, name: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Create one topic with the cluster's default replication, and wait until it is known."""
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=-1, config=dict(settings)
        )
        with translating(f"creating topic {name}"):
            self._admin.create_topics([topic], request_timeout=CALL_SECONDS)[name].result()
            # Brokers learn of it a little later, and who asks until then would make it again.
            deadline = time.monotonic() + CALL_SECONDS
            while (
                name not in self._admin.list_topics(timeout=CALL_SECONDS).topics
                and time.monotonic() < deadline
            ):
                time.sleep(LOOK_SECONDS)

    def ends(self, partitions: Sequence[Partition], *, stable: bool = True) -> dict[Partition, int]:
        """The last stable offset of each partition, or the end behind what is unstable too."""
        isolation = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(*partition): OffsetSpec.latest() for partition in partitions}
        found = {}
        with translating("reading the ends of the log"):
            futures = self._admin.list_offsets(
                asked,
                isolation_level=isolation,
                request_timeout=CALL_SECONDS,
            )
            for item, future in futures.items():
                found[Partition(item.topic, item.partition)] = self._offset(future)
        return found

    def _offset(self, future: Any) -> int:
        try:
            return int(future.result().offset)
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.FENCED_LEADER_EPOCH:
                # Since a broker's restart; the client would ask with the old epoch for minutes.
                self._admin.list_topics(timeout=CALL_SECONDS)
            raise

    def committed(self, group: str, topic: str) -> dict[Partition, layouts.Stored]:
        """The group's offsets on the topic, without waiting for open transactions.

        By a consumer: the admin client's own call was seen to end the process while a fresh broker
        still makes its groups' topic (confluent-kafka 2.16.1).
        """
        settings = consumer_settings(self._settings, group) | {
            "isolation.level": "read_uncommitted"
        }
        with (
            translating(f"reading the offsets of group {group}"),
            closing(Consumer(settings)) as consumer,
        ):
            count = len(consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic].partitions)
            asked = [TopicPartition(topic, number) for number in range(count)]
            found = committed(consumer, asked, CALL_SECONDS)
        return stored(found)

    def runs(self, group: str, partitions: Sequence[Partition]) -> set[str]:
        """The runs that own these partitions by their offsets. Raises ClusterUnfit, Retriable."""
        stored = self.committed(group, partitions[0].topic)
        return layouts.runs({p: stored[p] for p in partitions if p in stored}, group)

    def grow(self, name: str, partitions: int) -> None:
        """Add partitions to a topic, up to this number."""
        wanted = NewPartitions(name, partitions)
        with translating(f"adding partitions to topic {name}"):
            self._admin.create_partitions([wanted], request_timeout=CALL_SECONDS)[name].result()

    def operations(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """What this user may do with each topic, in Kafka's words; none where it does not tell."""
        wanted = list(names)
        with translating("asking for permissions"):
            described = self._admin.describe_topics(
                TopicCollection(wanted),
                include_authorized_operations=True,
                request_timeout=CALL_SECONDS,
            )
            return {
                name: frozenset(one.name for one in future.result().authorized_operations or ())
                for name, future in described.items()
            }

    def delete(self, name: str) -> None:
        """Delete one topic; waits until its name is free again."""
        with translating(f"deleting topic {name}"):
            futures = self._admin.delete_topics(
                [name], operation_timeout=CALL_SECONDS, request_timeout=CALL_SECONDS
            )
            futures[name].result()

    def delete_group(self, group: str) -> None:
        """Delete a group and its offsets."""
        with translating(f"deleting group {group}"):
            futures = self._admin.delete_consumer_groups([group], request_timeout=CALL_SECONDS)
            futures[group].result()

    def starting_points(self, topic: Topic, start: str) -> dict[Partition, int]:
        """Next offsets at `earliest`, `latest` or the first record at or after an ISO-8601 time."""
        if start == "latest":
            return self.ends(topic.all)
        if start == "earliest":
            spec = OffsetSpec.earliest()
        else:
            moment = datetime.datetime.fromisoformat(start)
            spec = OffsetSpec.for_timestamp(int(moment.timestamp() * 1000))
        with translating(f"finding the offsets of {start}"):
            futures = self._admin.list_offsets(
                {TopicPartition(*partition): spec for partition in topic.all},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=CALL_SECONDS,
            )
            found = {
                Partition(item.topic, item.partition): int(future.result().offset)
                for item, future in futures.items()
            }
        later = [partition for partition, offset in found.items() if offset in {-1, OFFSET_END}]
        return {**found, **(self.ends(later) if later else {})}


def require(topics: Mapping[str, Topic], name: str, setting: str) -> Topic:
    """The named topic. Raises ClusterUnfit where it is missing."""
    if name not in topics:
        raise ClusterUnfit(
            f"{setting} = {name!r}: the broker has no such topic. "
            "Create it, or let `headrace create-topics` do so"
        )
    return topics[name]
