"""The independent client: it connects as the job does, and knows where a key belongs."""

import pytest

from pipeline.edges.kafka_python import connection, offsets_partition, partition_of
from pipeline.errors import ConfigInvalid


def test_librdkafkas_keys_become_kafka_pythons() -> None:
    """What connects is translated; what tunes the writing path is left out."""
    settings = {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "secret",
        "ssl.ca.location": "ca.pem",
        "ssl.endpoint.identification.algorithm": "none",
        "linger.ms": "50",
    }
    assert connection(settings) == {
        "client_id": "headrace-verify",
        "bootstrap_timeout_ms": 10_000,
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
        "ssl_cafile": "ca.pem",
        "ssl_check_hostname": False,
    }


def test_a_way_to_connect_that_it_does_not_know_is_refused() -> None:
    """The key is named, its value is not, as it may be a secret."""
    with pytest.raises(ConfigInvalid) as refused:
        connection({"bootstrap.servers": "a:1", "sasl.oauthbearer.config": "hidden"})
    assert "kafka.sasl.oauthbearer.config" in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_keys_belong_where_javas_producer_puts_them() -> None:
    """The values are those of Apache Kafka's own test of murmur2, by eight partitions."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for key, digest in known.items():
        assert partition_of(key, 8) == (digest & 0x7FFFFFFF) % 8


@pytest.mark.parametrize(
    ("group", "partition"), [("fraud", 10), ("polygenelubricants", 0), ("a", 47), ("é😀", 12)]
)
def test_a_groups_offsets_are_where_the_broker_keeps_them(group: str, partition: int) -> None:
    """By Java's hash of its name, which may be negative, and whose least value has no opposite."""
    assert offsets_partition(group, 50) == partition
