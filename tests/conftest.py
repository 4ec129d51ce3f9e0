"""What tests share: one real Kafka and one local Ray a session, and names of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from jobs.broker_process import free_ports
from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import Broker, broker

# A machine may be busy with something else: no test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OBJECT_STORE_BYTES = 256 << 20  # batches are a few MB each; the default takes a third of the memory
HEAD_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class RayHead:
    """A Ray head: its dashboard (a URL), its cluster (host:port), what its clients must set."""

    dashboard: str
    address: str
    token: dict[str, str]


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
def cuda() -> None:
    """Skip where ONNX Runtime has no CUDA."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs a GPU, CUDA and onnxruntime-gpu")


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
        # As a local Ray of a run's own has it.
        _system_config={"worker_niceness": 0},
    )
    try:
        yield
    finally:
        ray.shutdown()


# Of a module, as a head that asks for a token costs each `headrace status` without one 20 s: Ray
# tries all clusters that it finds on the machine.
@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """Run a Ray head of its own that asks for a token, shared by the tests of a module."""
    ports = free_ports(6)
    names = ["port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"]
    names += ["node-manager-port", "object-manager-port"]
    # Short, as the paths of sockets may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    binary = Path(sys.executable).parent
    command = [str(binary / "ray"), "start", "--head", "--block", "--num-cpus=8"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += ["--object-store-memory=200000000", f"--temp-dir={folder}"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= token
    environment |= {
        "PATH": f"{binary}{os.pathsep}{os.environ['PATH']}",
        "RAY_usage_stats_enabled": "0",
    }
    dashboard = f"http://127.0.0.1:{ports[1]}"
    log = folder / "head.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
        try:
            deadline = time.monotonic() + HEAD_SECONDS
            while not _answers(f"{dashboard}/api/version"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield RayHead(dashboard, f"127.0.0.1:{ports[0]}", token)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(HEAD_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError:
        return True  # it refuses, so it is there
    except OSError:
        return False
