"""Finds out by trying whether a broker carries transactions, offsets and fences as Kafka does."""

import logging
import time
from collections.abc import Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.edges.kafka.clients import (
    FENCED,
    consumer_settings,
    ignored,
    producer_settings,
    send_offsets,
    translate,
    translating,
)

CALL_SECONDS = 15.0
METADATA = "headrace check"
POSITION = 7

# That an owner is fenced is what is tried; librdkafka would call it fatal on stderr.
_silent = logging.Logger("probe")
_silent.addHandler(logging.NullHandler())


def broken_promise(settings: Mapping[str, str], name: str, topic: str) -> str | None:
    """What the broker does otherwise than Apache Kafka, None where it keeps all that is tried.

    `name` is the group and transactional id of the trial, `topic` an empty topic of its own: both
    may be deleted afterwards.
    Tried are the metadata of offsets that a transaction commits, the records of a transaction
    that is aborted, and those of an owner that was fenced.
    Raises ClusterUnfit, OutcomeUnknown, Retriable.
    """
    with closing(
        Consumer({**consumer_settings(settings, name), "fetch.wait.max.ms": 50})
    ) as reader:
        older = _owner(settings, name)
        with translating("committing offsets in a transaction"):
            older.begin_transaction()
            at = TopicPartition(topic, 0, POSITION, metadata=METADATA)
            send, group = older.send_offsets_to_transaction, reader.consumer_group_metadata()
            send_offsets(send, [at], group, CALL_SECONDS)
            older.commit_transaction(CALL_SECONDS)
            (found,) = reader.committed([TopicPartition(topic, 0)], timeout=CALL_SECONDS)
        if found.offset != POSITION:
            return f"an offset committed in a transaction reads {found.offset}, not {POSITION}"
        if found.metadata != METADATA:
            return "the metadata of an offset committed in a transaction is forgotten"
        with translating("aborting a transaction"):
            older.begin_transaction()
            older.produce(topic, b"aborted", partition=0)
            older.flush(CALL_SECONDS)
            older.abort_transaction(CALL_SECONDS)
        older.begin_transaction()
        older.produce(topic, b"fenced", partition=0)
        older.flush(CALL_SECONDS)
        newer = _owner(settings, name)
        try:
            older.commit_transaction(CALL_SECONDS)
        except KafkaException as problem:
            if not _is_fenced(older, problem.args[0]):
                raise translate(problem.args[0], "committing as an owner that was fenced") from None
        else:
            return "an owner that was fenced can commit all the same"
        with translating("committing a transaction"):
            newer.begin_transaction()
            newer.produce(topic, b"committed", partition=0)
            newer.commit_transaction(CALL_SECONDS)
        seen = _stable_values(reader, topic)
        if seen != [b"committed"]:
            texts = ", ".join(sorted({(value or b"").decode() for value in seen})) or "none"
            return f"a reader of committed records sees these ones: {texts}"
    return None


def _owner(settings: Mapping[str, str], name: str) -> Producer:
    producer = Producer(
        {**producer_settings(settings, 0), "transactional.id": name, "error_cb": ignored},
        logger=_silent,
    )
    with translating(f"fencing {name}"):
        producer.init_transactions(CALL_SECONDS)
    return producer


def _is_fenced(producer: Producer, error: KafkaError) -> bool:
    if error.code() != KafkaError._FATAL:  # noqa: SLF001
        return error.code() in FENCED
    try:
        producer.abort_transaction(0)
    except KafkaException as problem:
        return problem.args[0].code() in FENCED
    return False


def _stable_values(reader: Consumer, topic: str) -> list[bytes | None]:
    """What a reader of stable records finds up to the end."""
    values: list[bytes | None] = []
    deadline = time.monotonic() + CALL_SECONDS
    with translating(f"reading {topic}"):
        reader.assign([TopicPartition(topic, 0, 0)])
        while time.monotonic() < deadline:
            message = reader.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is None:
                values.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                break
            elif not error.retriable():
                raise translate(error, f"reading {topic}")
    return values
