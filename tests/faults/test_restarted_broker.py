"""A broker that comes back: clients that were there before must not live by what it was."""

import pytest
from harness import PARTITIONS, feed, until

from jobs.local_broker import create_topics
from pipeline.batch import Partition
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.errors import Retriable

# The client would find out by itself after five.
SECONDS = 60.0


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
