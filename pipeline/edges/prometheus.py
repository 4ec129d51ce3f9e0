"""Metrics for Prometheus, made from the newest status when they are read."""

import threading
from collections.abc import Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.status import Status


class _Collector:
    """Turns a status into metric families; labels and units follow Prometheus' conventions."""

    def __init__(self) -> None:
        self.status: Status | None = None

    def collect(self) -> Iterable[Metric]:
        status = self.status
        if status is None:
            return
        names = ["job", "model_name", "model_version"]
        labels = [status.job, status.model_name, status.model_version]

        def counter(name: str, text: str, value: float) -> Metric:
            family = CounterMetricFamily(f"headrace_{name}", text, labels=names)
            family.add_metric(labels, value)
            return family

        def gauge(name: str, text: str, value: float) -> Metric:
            family = GaugeMetricFamily(f"headrace_{name}", text, labels=names)
            family.add_metric(labels, value)
            return family

        yield counter("records", "Records read, scored and committed", status.records_in)
        yield counter("predictions", "Predictions committed", status.records_out)
        dead = CounterMetricFamily(
            "headrace_dead_letters", "Dead letters committed", labels=[*names, "reason"]
        )
        for reason, count in status.dead_letters.items():
            dead.add_metric([*labels, reason], count)
        yield dead
        yield counter("feeders_replaced", "Feeders that had a successor", status.feeders_replaced)
        yield counter("replicas_replaced", "Replicas replaced", status.replicas_replaced)
        yield gauge("time_lag_seconds", "Age of the oldest uncommitted record", status.time_lag)
        yield from self._partitions(status, names, labels)
        replicas = GaugeMetricFamily("headrace_replicas", "Replicas", labels=[*names, "state"])
        for state in ("starting", "ready", "retiring"):
            count = sum(1 for replica in status.replicas if replica.state == state)
            replicas.add_metric([*labels, state], count)
        yield replicas
        if status.scaling.wanted is not None and status.scaling.batch_size is not None:
            yield gauge("replicas_wanted", "Replicas decided upon", status.scaling.wanted)
            yield gauge("batch_size", "Records in a batch at most", status.scaling.batch_size)
        yield counter("scale_ups", "Decisions for more replicas", status.scaling.ups)
        yield counter("scale_downs", "Decisions for fewer replicas", status.scaling.downs)
        yield counter("archived_rows", "Rows in visible Parquet files", status.archive.rows)
        yield counter("archived_files", "Parquet files made visible", status.archive.files)
        yield gauge(
            "archive_lag_seconds",
            "Age of the oldest row that is in no visible file",
            status.archive.oldest_seconds,
        )
        memory = GaugeMetricFamily(
            "headrace_feeder_memory_bytes", "Resident memory", labels=["job", "slot"]
        )
        for slot in status.slots:
            memory.add_metric([status.job, str(slot.slot)], slot.memory_bytes)
        yield memory

    @staticmethod
    def _partitions(status: Status, names: list[str], labels: list[str]) -> Iterable[Metric]:
        where = [*names, "topic", "partition"]
        lag = GaugeMetricFamily("headrace_lag", "Offsets to the last stable one", labels=where)
        age = GaugeMetricFamily(
            "headrace_partition_time_lag_seconds", "Age of the oldest record", labels=where
        )
        committed = GaugeMetricFamily("headrace_committed_offset", "Next offset", labels=where)
        for item in status.partitions:
            place = [*labels, item.topic, str(item.partition)]
            lag.add_metric(place, item.lag)
            age.add_metric(place, item.time_lag)
            committed.add_metric(place, item.committed)
        yield from (lag, age, committed)


class Exporter:
    """The one port from which Prometheus reads; None serves none. Raises ConfigInvalid."""

    def __init__(self, host: str, port: int | None) -> None:
        self._collector = _Collector()
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        if port is None:
            return
        registry = CollectorRegistry()
        registry.register(self._collector)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as problem:
            way_out = "Choose another port, 0 for a free one or null for none"
            raise ConfigInvalid(
                [Mistake("metrics.port", port, f"cannot be bound: {problem}", way_out)]
            ) from problem

    @property
    def port(self) -> int | None:
        """The port that it listens on."""
        return self._server.server_port if self._server else None

    def show(self, status: Status) -> None:
        """Serve this status from now on."""
        self._collector.status = status

    def close(self) -> None:
        """Give the port back."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
