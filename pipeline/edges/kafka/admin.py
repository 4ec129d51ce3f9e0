"""The control plane: topics, ends of logs, the stored layout, and the first start of a job."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from pipeline import layout as layouts
from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.edges.kafka.clients import (
    common,
    consumer_settings,
    producer_settings,
    translate,
    translating,
)
from pipeline.edges.kafka.offsets import stored, with_metadata
from pipeline.errors import ClusterUnfit, Retriable
from pipeline.topology import Topic

CALL_SECONDS = 10.0


def transactional_id(group: str, slot: int) -> str:
    """The fence of one slot. Nothing in it is random: who shares the group shares the fence."""
    return f"{group}.{slot:04d}"


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
        """Create one topic with the cluster's default replication."""
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=-1, config=dict(settings)
        )
        with translating(f"creating topic {name}"):
            self._admin.create_topics([topic], request_timeout=CALL_SECONDS)[name].result()

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The last stable offset of each partition."""
        asked = {TopicPartition(*partition): OffsetSpec.latest() for partition in partitions}
        found = {}
        with translating("reading the ends of the log"):
            futures = self._admin.list_offsets(
                asked,
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=CALL_SECONDS,
            )
            for item, future in futures.items():
                found[Partition(item.topic, item.partition)] = int(future.result().offset)
        return found

    def committed(self, group: str, topic: str) -> dict[Partition, layouts.Stored]:
        """The group's offsets on the topic, without waiting for open transactions.

        By a consumer: it asks again while a fresh broker still loads its groups, and the admin
        client's own call was seen to end the process there (confluent-kafka 2.16.1).
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
            found = consumer.committed(asked, timeout=CALL_SECONDS) if asked else []
        return stored(found)

    def epoch(self, group: str, partitions: Sequence[Partition]) -> int:
        """The newest epoch that is stored for these partitions. Raises ClusterUnfit, Retriable."""
        stored = self.committed(group, partitions[0].topic)
        return max(
            (layouts.decode(p, stored[p], group).epoch for p in partitions if p in stored),
            default=0,
        )

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

    # -- the layout ------------------------------------------------------------------------------

    def open_layout(self, group: str, topic: Topic, fresh: Layout, start: str) -> Layout:
        """The stored layout, with every slot fenced and its epoch moved on for this run.

        The fences end what dead owners left open, which would block offsets and readers; the
        epochs tell the feeders of another run at once that they have a successor. At the first
        start commits `fresh` with the positions that `start` means, under the first slot's id in
        one transaction, so that of two first starts only one succeeds.
        Raises Fenced, ClusterUnfit, Retriable.
        """
        first = self._fencing(group, 0)
        layout = layouts.stored_layout(self._stable(group, topic), group)
        if layout is None:
            positions = self.starting_points(topic, start)
            self._commit(first, group, with_metadata(positions, fresh, 0, 0))
            return fresh
        fences = [first, *(self._fencing(group, slot) for slot in range(1, layout.slots))]
        stored = self._stable(group, topic)
        for slot, producer in enumerate(fences):
            own = {p: item for p, item in stored.items() if p.number % layout.slots == slot}
            if own:
                epoch = 1 + max(layouts.decode(p, item, group).epoch for p, item in own.items())
                positions = {partition: item.offset for partition, item in own.items()}
                self._commit(producer, group, with_metadata(positions, layout, epoch, 0))
        return layout

    def _commit(self, producer: Producer, group: str, offsets: list[TopicPartition]) -> None:
        with translating(f"committing the layout of group {group}"):
            producer.begin_transaction()
            producer.send_offsets_to_transaction(offsets, self._group_metadata(group), CALL_SECONDS)
            producer.commit_transaction(CALL_SECONDS)

    def open_layout_unfenced(self, group: str, topic: Topic, fresh: Layout, start: str) -> Layout:
        """The same under `at_least_once`, where nothing fences."""
        layout = layouts.stored_layout(self._stable(group, topic), group)
        if layout is None:
            positions = self.starting_points(topic, start)
            consumer = Consumer(consumer_settings(self._settings, group))
            with translating(f"first start of group {group}"):
                consumer.commit(offsets=with_metadata(positions, fresh, 0, 0), asynchronous=False)
            consumer.close()
            return fresh
        return layout

    def _fencing(self, group: str, slot: int) -> Producer:
        """Fence whoever holds the slot's id, which also ends its open transaction."""
        name = transactional_id(group, slot)
        producer = Producer({**producer_settings(self._settings, 0), "transactional.id": name})
        with translating(f"fencing {name}"):
            producer.init_transactions(3 * CALL_SECONDS)
        return producer

    def _stable(self, group: str, topic: Topic) -> dict[Partition, layouts.Stored]:
        consumer = Consumer(consumer_settings(self._settings, group))
        asked = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        try:
            found = consumer.committed(asked, timeout=CALL_SECONDS / 2)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError._TIMED_OUT:  # noqa: SLF001
                raise translate(problem.args[0], f"reading offsets of group {group}") from problem
            raise Retriable(
                f"the offsets of group {group} stay unstable: a transaction that is none of this "
                "job's holds them open. Find it with `kafka-transactions.sh find-hanging` and "
                "abort it"
            ) from problem
        finally:
            consumer.close()
        return stored(found)

    def _group_metadata(self, group: str) -> object:
        consumer = Consumer(consumer_settings(self._settings, group))
        metadata = consumer.consumer_group_metadata()
        consumer.close()
        return metadata

    def starting_points(self, topic: Topic, start: str) -> dict[Partition, int]:
        """Offsets of `earliest`, `latest` or the first record at or after an ISO-8601 time."""
        partitions = [Partition(topic.name, number) for number in range(topic.partitions)]
        if start == "latest":
            return self.ends(partitions)
        if start == "earliest":
            spec = OffsetSpec.earliest()
        else:
            moment = datetime.datetime.fromisoformat(start)
            spec = OffsetSpec.for_timestamp(int(moment.timestamp() * 1000))
        with translating(f"finding input.start = {start}"):
            futures = self._admin.list_offsets(
                {TopicPartition(*partition): spec for partition in partitions},
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
