"""What tests share: one real Kafka and one local Ray a session, and names of their own."""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import Broker, broker

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OBJECT_STORE_BYTES = 256 << 20  # batches are a few MB each; the default takes a third of the memory


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """Give a real Apache Kafka, shared by all tests: each keeps to its own `topic_prefix`."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(broker("kafka"))
        except BrokerUnavailable as error:
            if "KAFKA_BOOTSTRAP_SERVERS" in os.environ:
                raise  # asked for by name: a run without it would prove less than it says
            pytest.skip(f"needs a Kafka broker: {error}")
        yield started


@pytest.fixture
def topic_prefix() -> str:
    """Give a name that no other test has, for topics, groups and transactional ids."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of the public data sets: HEADRACE_SHARED, else beside the repository."""
    folder = Path(os.environ.get("HEADRACE_SHARED") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set HEADRACE_SHARED to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Run one local Ray, shared by all tests."""
    import ray

    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        namespace="headrace",
        object_store_memory=OBJECT_STORE_BYTES,
    )
    try:
        yield
    finally:
        ray.shutdown()
