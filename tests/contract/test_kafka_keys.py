"""The keys that are refused against those that the Kafka edge sets."""

from pipeline import kafka_keys
from pipeline.edges.kafka.clients import consumer_settings, producer_settings

# The edge keeps what the user says of these.
DEFAULTS = {
    "client.id",
    "compression.type",
    "linger.ms",
    "queued.max.messages.kbytes",
}


def test_what_the_edge_sets_is_refused_in_a_config():
    """No setting of a user is dropped in silence: it is kept, or refused with the reason."""
    ours = set(consumer_settings({}, "group")) | set(producer_settings({}, 1))
    assert ours - DEFAULTS <= set(kafka_keys.OWNED)


def test_what_is_a_default_gives_way_to_the_user():
    """A value from the config is what the clients get."""
    user = {"client.id": "me", "compression.type": "zstd", "linger.ms": "0"}
    user |= {"queued.max.messages.kbytes": "1000"}
    made = consumer_settings(user, "group") | producer_settings(user, 1)
    assert user.keys() == DEFAULTS
    assert {key: str(made[key]) for key in user} == user
