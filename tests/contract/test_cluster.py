"""Ray clusters that are not there: refused at once, with the way out."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.edges.ray import CONNECT_SECONDS, RayCluster
from pipeline.errors import ClusterUnfit


@pytest.fixture
def silent() -> Iterator[int]:
    """Give a port of this machine that is taken and that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_nothing_answers_is_refused_at_once(scheme: str, silent: int) -> None:
    """Ray itself would try for minutes."""
    began = time.monotonic()
    address = f"{scheme}127.0.0.1:{silent}"
    with pytest.raises(ClusterUnfit, match=f"--address = '{address}': nothing answers there"):
        RayCluster(address, 1)
    assert time.monotonic() - began < 2 * CONNECT_SECONDS


def test_an_address_of_the_environment_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    """RAY_ADDRESS joins a cluster as the option does."""
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent}")
    with pytest.raises(ClusterUnfit, match="nothing answers there"):
        RayCluster(None, 1)


def test_a_port_that_cannot_be_is_refused() -> None:
    """Whoever listens at what is left of its number: the resolver cuts it to sixteen bits."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1] + (1 << 16)
        with pytest.raises(ClusterUnfit, match="nothing answers there"):
            RayCluster(f"127.0.0.1:{number}", 1)


ASKED = """
import json, sys
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get
from pipeline.edges import ray as edge
from pipeline.edges.ray import RayCluster

edge.RESERVE_SECONDS = 0.0

def asked():
    return json.loads(_internal_kv_get("autoscaler_resource_request", namespace=None) or "[]")

cluster = RayCluster(sys.argv[1], 0)
try:
    before = asked()
    cluster.reserve(3, 0.5)
    during = asked()
    _internal_kv_del("autoscaler_resource_request", namespace=None)
    cluster.reserve(3, 0.5)
    print(json.dumps([before, during, asked()]))
finally:
    cluster.close()
cluster = RayCluster(sys.argv[1], 0)
print(json.dumps(asked()))
cluster.close()
"""


@pytest.mark.usefixtures("ray_session")
def test_room_for_replicas_is_asked_of_the_autoscaler_and_given_back_at_the_end() -> None:
    """The request stands in Ray's store while the run does, also where Ray lost it, and ends with it."""
    import ray

    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", ASKED, address],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    during, after = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    before, *asked = during
    assert before == after == []
    for bundles in asked:
        assert [bundle.get("resources", bundle) for bundle in bundles] == [{"CPU": 0.5}] * 3
