"""Kafka by kafka-python, which shares no code with the client that the job writes with."""

import base64
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from kafka.partitioner.default import murmur2

from pipeline.errors import ClusterUnfit, ConfigInvalid, HeadraceError, Mistake, NotCheckable
from pipeline.ports import Records
from pipeline.topology import Topic

# Connections that come and go are no news; what fails is raised.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

BOOTSTRAP_MS = 10_000
CALL_MS = 20_000
POLL_MS = 500
POLL_RECORDS = 8192
FETCH_BYTES = 8 << 20
# Transactions of ours time out after 60 s; the broker looks for such each 10 s.
STABLE_SECONDS = 90.0
OFFSETS_TOPIC = "__consumer_offsets"
OPEN_STATES = ("Ongoing", "PrepareCommit", "PrepareAbort")

# librdkafka's keys in kafka-python's words. What is not named here tunes the writing path only.
_SAME = {
    "bootstrap.servers": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "client.rack": "client_rack",
}
_CONNECTS = ("ssl.", "sasl.", "https.", "enable.ssl.", "enable.sasl.")
_HOSTNAMES = "ssl.endpoint.identification.algorithm"


@dataclass(frozen=True, slots=True)
class Position:
    """A committed offset and what stands beside it."""

    offset: int
    metadata: str


def connection(settings: Mapping[str, str]) -> dict[str, Any]:
    """How to connect, as kafka-python is told. Raises ConfigInvalid for what it does not know."""
    found: dict[str, Any] = {
        "client_id": "headrace-verify",
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
    }
    mistakes = []
    for key, value in settings.items():
        if key == _HOSTNAMES:
            found["ssl_check_hostname"] = value != "none"
        elif key in _SAME:
            found[_SAME[key]] = value.upper() if key == "security.protocol" else value
        elif key.startswith(_CONNECTS):
            problem = "has no counterpart in kafka-python, which reads independently"
            way_out = f"Connect by {', '.join(sorted(_SAME))}, in a config for this command"
            mistakes.append(Mistake(f"kafka.{key}", "…", problem, way_out))
    if mistakes:
        raise ConfigInvalid(mistakes)
    found["bootstrap_servers"] = found["bootstrap_servers"].split(",")
    return found


def _position(item: Any) -> Position:
    # librdkafka sends the end of a C string along.
    return Position(item.offset, (item.metadata or "").rstrip("\0"))


def partition_of(key: bytes, partitions: int) -> int:
    """Where a keyed record belongs, as Java's producer and murmur2_random have it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def offsets_partition(group: str, partitions: int) -> int:
    """Where a broker keeps a group's offsets: by Java's hash of its name, as Kafka's Utils.abs."""
    number = 0
    for unit in memoryview(group.encode("utf-16-le")).cast("H"):
        number = (31 * number + unit) & 0xFFFFFFFF
    least = 1 << 31
    magnitude = number if number < least else (1 << 32) - number
    return 0 if number == least else magnitude % partitions


def _as_librdkafka(topic_id: str) -> str:
    """A topic's id in the text that stands in the metadata of offsets."""
    return base64.b64encode(uuid.UUID(topic_id).bytes).decode().rstrip("=")


def metadata_version(settings: Mapping[str, str]) -> int:
    """The newest `metadata.version` that the broker supports: nothing else tells its release.

    0 before Kafka 3.3. Raises ConfigInvalid, ClusterUnfit and NotCheckable as `KafkaReader` does.
    """
    told = connection(settings)
    with (
        _translating("asking for the broker's features"),
        closing(KafkaAdminClient(**told)) as admin,
    ):
        _, newest = admin.describe_features().get("metadata.version", {}).get("supported", (0, 0))
    return int(newest)


class KafkaReader:
    """What a `read_committed` reader sees; used by one thread.

    Every method raises ClusterUnfit where the broker refuses, NotCheckable without one.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = connection(settings)
        with _translating("connecting"):
            self._admin = KafkaAdminClient(**self._settings)
            self._plain = KafkaConsumer(**self._settings, enable_auto_commit=False)

    def topics(self, names: Sequence[str]) -> dict[str, Topic]:
        """Those of the named topics that exist."""
        with _translating("describing topics"):
            described = self._admin.describe_topics(list(names))
            there = [one for one in described if one["error_code"] == 0]
            resources = [ConfigResource(ConfigResourceType.TOPIC, one["name"]) for one in there]
            found = self._admin.describe_configs(resources, config_filter="all") if there else {}
        return {
            one["name"]: Topic(
                one["name"],
                _as_librdkafka(one["topic_id"]),
                len(one["partitions"]),
                {
                    key: entry["value"]
                    for key, entry in found["topic"][one["name"]].items()
                    if entry["value"] is not None
                },
            )
            for one in there
        }

    def committed(self, group: str, topic: str, partitions: int) -> dict[int, Position]:
        """The group's stable offsets; waits for transactions that are about to change them."""
        with (
            _translating(f"reading the offsets of group {group}"),
            self._consumer(group_id=group) as consumer,
        ):
            asked = [TopicPartition(topic, number) for number in range(partitions)]
            found = {}
            for one in asked:
                try:
                    item = consumer.committed(one, metadata=True, timeout_ms=CALL_MS)
                except KafkaTimeoutError as problem:
                    raise NotCheckable(
                        f"group {group}: an open transaction holds the offset of {topic}/"
                        f"{one.partition}: {self.holders(group)}. Try again once it has ended"
                    ) from problem
                if item is not None and item.offset >= 0:
                    found[one.partition] = _position(item)
        return found

    def holders(self, group: str) -> str:
        """The open transactions that are about to commit offsets of the group, for a message."""
        with _translating(f"asking who holds the offsets of group {group}"):
            (kept,) = self._admin.describe_topics([OFFSETS_TOPIC])
            place = TopicPartition(OFFSETS_TOPIC, offsets_partition(group, len(kept["partitions"])))
            listed = self._admin.list_transactions(state_filters=OPEN_STATES)
            names = {one.transactional_id for found in listed.values() for one in found}
            described = self._admin.describe_transactions(names)
        now = time.time()
        held = [
            f"transaction {name!r} of producer {one.producer_id}, open for "
            f"{now - one.transaction_start_time_ms / 1000:.0f} s, which the broker ends after "
            f"{one.transaction_timeout_ms / 1000:.0f} s"
            for name, one in sorted(described.items())
            if place in one.topic_partitions
        ]
        return "; ".join(held) or "none that this user may see"

    def bounds(self, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
        """The log's start and end of each partition, open transactions included."""
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        with _translating(f"reading the bounds of {topic}"):
            lows = self._plain.beginning_offsets(asked, timeout_ms=CALL_MS)
            highs = self._plain.end_offsets(asked, timeout_ms=CALL_MS)
        return {one.partition: (lows[one], highs[one]) for one in asked}

    def read(self, topic: str, number: int, first: int, end: int) -> Iterator[Records]:
        """Committed records of `[first, end)`, some at a time; waits until all is stable.

        Raises NotCheckable where an open transaction stays before `end`, or retention removes
        what is asked for.
        """
        if first >= end:
            return
        place = TopicPartition(topic, number)
        doing = f"reading {topic}/{number}"
        with _translating(doing), self._consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, first)
            moved = time.monotonic()
            at = first
            while at < end:
                got = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS).get(place, [])
                position = consumer.position(place)
                if position > at:
                    at, moved = position, time.monotonic()
                elif time.monotonic() - moved > STABLE_SECONDS:
                    raise NotCheckable(
                        f"{doing}: an open transaction, or a broker that does not answer, holds it "
                        f"at offset {at}, before {end}. `kafka-transactions.sh find-hanging` tells "
                        "whose the transaction is"
                    )
                records = [one for one in got if one.offset < end]
                yield Records(
                    [one.offset for one in records],
                    [one.key for one in records],
                    [one.value for one in records],
                    [one.headers for one in records],
                    min(at, end),
                )

    @contextmanager
    def _consumer(self, **more: Any) -> Iterator[Any]:
        consumer = KafkaConsumer(
            **self._settings,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
            metrics_enabled=False,
            **more,
        )
        try:
            yield consumer
        finally:
            consumer.close(autocommit=False)

    def close(self) -> None:
        """Give the connections back."""
        self._plain.close(autocommit=False)
        self._admin.close()


@contextmanager
def _translating(doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as problem:
        raise _translated(problem, f"{doing}: {problem}") from problem


def _translated(problem: KafkaError, text: str) -> HeadraceError:
    if isinstance(problem, OffsetOutOfRangeError):
        return NotCheckable(f"{text}: retention removed records while they were being read")
    if isinstance(problem, AuthorizationError | UnknownTopicOrPartitionError):
        return ClusterUnfit(text)
    return NotCheckable(text)
