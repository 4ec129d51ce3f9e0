"""The metrics port: what Prometheus would scrape."""

import re
import socket
import urllib.request

import pytest

from pipeline.edges.prometheus import Exporter
from pipeline.errors import ConfigInvalid
from pipeline.status import (
    ArchiveStatus,
    PartitionStatus,
    PlacementStatus,
    ReplicaStatus,
    ScalingStatus,
    SlotStatus,
    Status,
)

STATUS = Status(
    job="fraud",
    state="running",
    delivery="exactly_once",
    placement=PlacementStatus("remote", "remote", None),
    model_name="fraud",
    model_version="1",
    started_at=0.0,
    at=1.0,
    records_in=12,
    records_out=10,
    dead_letters={"decode:MalformedJson": 2},
    records_per_second=5.0,
    lag=7,
    time_lag=1.5,
    feeders_replaced=1,
    replicas_replaced=0,
    slots=[SlotStatus(0, "running", 1, 3, "records", 0, 4, 0.1, 1.0, 1000)],
    partitions=[PartitionStatus("fraud.events", 0, 0, 5, 12, 7, 1.5)],
    replicas=[ReplicaStatus(1, "ready", 2, 3.0, 1, None, 0.0)],
    scaling=ScalingStatus("act", 3, 256, "up from 1 to 3", 2, 1),
    archive=ArchiveStatus("running", 3, 8, 1, 2, 0, 0.5),
)


def scraped(exporter: Exporter) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_a_status_is_served_under_the_names_of_the_documentation():
    """Counters end in _total, units stand in the names, labels are those of the conventions."""
    exporter = Exporter("127.0.0.1", 0)
    try:
        exporter.show(STATUS)
        text = scraped(exporter)
    finally:
        exporter.close()
    labels = 'job="fraud",model_name="fraud",model_version="1"'
    assert f"headrace_records_total{{{labels}}} 12.0" in text
    assert f"headrace_time_lag_seconds{{{labels}}} 1.5" in text
    assert f'headrace_replicas{{{labels},state="ready"}} 1.0' in text
    assert f"headrace_replicas_wanted{{{labels}}} 3.0" in text
    assert f"headrace_scale_ups_total{{{labels}}} 2.0" in text
    assert f'headrace_lag{{{labels},partition="0",topic="fraud.events"}} 7.0' in text
    assert f'headrace_dead_letters_total{{{labels},reason="decode:MalformedJson"}} 2.0' in text
    assert len(re.findall("^# HELP", text, re.MULTILINE)) >= 10


def test_a_port_that_is_taken_is_named():
    """The message names the setting, the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigInvalid, match=rf"metrics.port = {port}.*null for none"):
            Exporter("127.0.0.1", port)


def test_no_port_serves_nothing():
    """`port: null` binds nothing, and showing a status is still fine."""
    exporter = Exporter("127.0.0.1", None)
    exporter.show(STATUS)
    exporter.close()
    assert exporter.port is None
