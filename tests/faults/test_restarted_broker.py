"""A broker that comes back: clients that were there before must not live by what it was."""

import pytest
from audit import stable
from confluent_kafka import Producer
from harness import PARTITIONS, feed, until
from kafka.errors import KafkaError

from jobs.local_broker import create_topics
from pipeline.batch import Partition
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.errors import Retriable

# The client would find out by itself after five.
SECONDS = 60.0
# Each hits the moment between the answer to a commit and its markers, or misses it.
KILLS = 4


@pytest.mark.long
def test_the_ends_of_the_log_are_known_again_soon(theatre, topic_prefix):
    """The leaders' epochs have moved on, and the client is told to ask for them."""
    create_topics(theatre.direct, {topic_prefix: PARTITIONS})
    feed(theatre, topic_prefix, 100)
    admin = KafkaAdmin({"bootstrap.servers": theatre.direct})
    partitions = [Partition(topic_prefix, number) for number in range(PARTITIONS)]

    def known() -> bool:
        try:
            return sum(admin.ends(partitions).values()) == 100
        except Retriable:
            return False

    assert known()
    theatre.broker.process.stop()
    theatre.broker.process.start()
    until(known, "the ends are known", SECONDS)


@pytest.mark.long
def test_the_broker_keeps_a_commit_that_it_has_acknowledged(theatre, topic_prefix):
    """Also one whose markers were not written when it was killed.

    Kafka 4.3.0 and 4.3.1 lose it, for whichever client: a partition without a leader, which each
    is while the broker comes back, is taken for a deleted one and gets no marker. Nothing that
    stands on transactions can make up for that.
    """
    for number in range(KILLS):
        name = f"{topic_prefix}.{number}"
        create_topics(theatre.direct, {name: PARTITIONS})
        producer = Producer({"bootstrap.servers": theatre.direct, "transactional.id": name})
        producer.init_transactions(SECONDS)
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.produce(name, b"kept", partition=partition)
        producer.commit_transaction(SECONDS)
        theatre.broker.process.kill()
        theatre.broker.process.start()

        def kept(name: str = name) -> bool:
            try:
                return len(stable(theatre.direct, name)) == PARTITIONS
            except KafkaError:
                return False

        until(kept, f"a reader sees what commit {number} has acknowledged", SECONDS)
