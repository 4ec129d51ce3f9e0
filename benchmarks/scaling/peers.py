"""The policies of others as drop-ins: each gives a function like `pipeline.scale.decide`.

They are written from the documentation and source of each project, for one operator that reads a
topic of at least as many partitions as `max_replicas`. What a real deployment would add (Flink's
restart of the whole job at each change, KEDA's pause between polls) is left out, in their favour.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Any

from benchmarks.scaling.simulate import BATCH, PEAK_REPLICAS, REPLICA_RATE, STEP_SECONDS
from pipeline.outlook import Policy, Signals
from pipeline.scale import Decide, Decision

Settings = dict[str, float]


@dataclass(frozen=True, slots=True)
class Peer:
    """One policy: `make` takes settings by name, `defaults` are its vendor's."""

    name: str
    make: Callable[..., Decide]
    defaults: Settings
    grid: dict[str, tuple[float, ...]]

    def candidates(self) -> Iterator[Settings]:
        """Every combination of the grid, and the defaults."""
        yield self.defaults
        for values in product(*self.grid.values()):
            yield {**self.defaults, **dict(zip(self.grid, values, strict=True))}


def _lag(signals: Signals) -> int:
    """Records that are not committed, as a tool beside the group sees them."""
    return sum(one.end - one.committed for one in signals.partitions.values())


def _bounded(replicas: float, policy: Policy) -> int:
    return int(min(max(replicas, policy.min_replicas, 1), policy.max_replicas))


@dataclass(frozen=True, slots=True)
class _Hpa:
    synced: float = float("-inf")
    recommended: tuple[tuple[float, int], ...] = ()


def keda(lag_threshold: float, stabilization: float) -> Decide:
    """KEDA's Kafka scaler with the HorizontalPodAutoscaler.

    KEDA gives the group's total lag as an external metric with target type AverageValue
    `lagThreshold` (kedacore/keda pkg/scalers/kafka_scaler.go; default 10). The HPA syncs every
    15 s: no change while total / (target * replicas) is within the tolerance of 0.1 of 1, else
    ceil(total / target); upwards at most the greater of 4 more or twice as many within 15 s;
    downwards to the largest recommendation of the last 300 s (Kubernetes documentation,
    "Horizontal Pod Autoscaling": algorithm details, default behavior).
    """
    sync, tolerance, pods = 15.0, 0.1, 4

    def decide(signals: Signals, memory: Any, policy: Policy) -> tuple[Decision, _Hpa]:
        if not isinstance(memory, _Hpa):
            memory = _Hpa()
        have = signals.ready + len(signals.starting)
        if signals.at - memory.synced < sync or not signals.partitions:
            return Decision(have, BATCH, "between two syncs"), memory
        total = _lag(signals)
        ratio = total / (lag_threshold * max(have, 1))
        wanted = have if abs(ratio - 1) <= tolerance else ceil(total / lag_threshold)
        wanted = _bounded(wanted, policy)
        recent = (*memory.recommended, (signals.at, wanted))
        recent = tuple(r for r in recent if r[0] > signals.at - stabilization - sync)
        if wanted < have:
            wanted = min(have, max(count for _, count in recent))
        wanted = min(wanted, max(have + pods, 2 * have))
        return (
            Decision(wanted, BATCH, f"lag {total} against {lag_threshold:g} each"),
            _Hpa(signals.at, recent),
        )

    return decide


@dataclass(frozen=True, slots=True)
class _Flink:
    # (at, records that had arrived, records settled, busy seconds, replica-seconds).
    window: tuple[tuple[float, float, float, float, float], ...] = ()
    changed: float = 0.0
    evaluated: float = float("-inf")
    lower: tuple[tuple[float, int], ...] = ()


def flink(
    utilization: float,
    window: float,
    stabilization: float,
    catch_up: float,
    restart: float,
    scale_down_interval: float,
    busy_time: bool,
) -> Decide:
    """The autoscaler of Flink's Kubernetes operator, for one vertex that is the source too.

    capacity = lag / catch_up + rate * restart / catch_up + rate / utilization; replicas = ceil of
    now * capacity / true rate, at least 0.4 of now (scale-down.max-factor 0.6); nothing while the
    true rate lies between the capacities for utilization + 0.3 and - 0.3
    (target.utilization.boundary); nothing within stabilization.interval of a change; a decrease
    waits for scale-down.interval and takes the largest of it. The true rate is throughput over
    the share of time that tasks are busy; with `busy_time` false it is the rate observed at full
    load, which the operator takes while it catches up, and here always. From
    apache/flink-kubernetes-operator, flink-autoscaler: JobVertexScaler, AutoScalerUtils and
    AutoScalerOptions (defaults: utilization 0.7, metrics.window 15 min, stabilization 5 min,
    catch-up 30 min, restart 5 min, scale-down.interval 1 h).
    """
    every, boundary, max_factor = 60.0, 0.3, 0.6

    def decide(signals: Signals, memory: Any, policy: Policy) -> tuple[Decision, _Flink]:
        if not isinstance(memory, _Flink):
            memory = _Flink(changed=signals.at)
        have = signals.ready + len(signals.starting)
        parts = signals.partitions.values()
        last = memory.window[-1] if memory.window else (signals.at, 0.0, 0.0, 0.0, 0.0)
        busy = sum(m.seconds for m in signals.scored.values())
        newest = (
            signals.at,
            float(sum(p.end for p in parts)),
            float(sum(p.done for p in parts)),
            last[3] + busy,
            last[4] + signals.ready * (signals.at - last[0]),
        )
        samples = tuple(
            s for s in (*memory.window, newest) if s[0] > signals.at - window - STEP_SECONDS
        )
        memory = replace(memory, window=samples)
        covered = signals.at - samples[0][0]
        quiet = signals.at - memory.changed < stabilization
        if covered < window or quiet or signals.at - memory.evaluated < every:
            return Decision(have, BATCH, "stable, or the window is not full"), memory
        memory = replace(memory, evaluated=signals.at)
        _, arrived, settled, busy, paid = (
            new - old for new, old in zip(newest, samples[0], strict=True)
        )
        rate, throughput = arrived / covered, settled / covered
        share = min(1.0, max(busy / max(paid, 1e-9), 0.01))
        one = throughput / max(paid / covered, 1e-9) / share if busy_time else REPLICA_RATE
        true_rate = have * one
        lag: float = newest[1] - newest[2]

        def capacity(load: float) -> float:
            needed: float = lag / catch_up + rate / load
            return needed

        enough = capacity(min(1.0, utilization + boundary))
        too_much = capacity(max(0.05, utilization - boundary))
        wanted = have
        if true_rate > 0 and not enough <= true_rate <= too_much:
            factor = (capacity(utilization) + rate * restart / catch_up) / true_rate
            wanted = _bounded(ceil(have * max(factor, 1 - max_factor) - 1e-9), policy)
        if wanted >= have:
            memory = replace(memory, lower=())
        else:
            lower = (*memory.lower, (signals.at, wanted))
            memory = replace(memory, lower=lower)
            if signals.at - lower[0][0] < scale_down_interval:
                return Decision(have, BATCH, "a decrease waits"), memory
            since = signals.at - scale_down_interval
            wanted = max(count for at, count in lower if at >= since)
            memory = replace(memory, lower=())
        if wanted != have:
            # Metrics begin anew after a change.
            memory = _Flink((newest,), signals.at)
        return Decision(wanted, BATCH, f"{rate:.0f}/s against {true_rate:.0f}/s"), memory

    return decide


@dataclass(frozen=True, slots=True)
class _Serve:
    loads: tuple[tuple[float, float], ...] = ()
    since: float | None = None
    upwards: bool = False


def serve(target: float, upscale_delay: float, downscale_delay: float, queue: bool) -> Decide:
    """Ray Serve's default autoscaling policy, and with `queue` the one for async inference.

    desired = ongoing requests / target_ongoing_requests, averaged over look_back_period_s = 30;
    acted upon once it has pointed the same way for upscale_delay_s = 30 or downscale_delay_s =
    600; target 2 by default. Ongoing are the records at the replicas, at most two batches each;
    the queue policy adds the length of the broker's queue. From ray-project/ray
    python/ray/serve/autoscaling_policy.py: replica_queue_length_autoscaling_policy and
    async_inference_autoscaling_policy; defaults of AutoscalingConfig.
    """
    look_back = 30.0

    def decide(signals: Signals, memory: Any, policy: Policy) -> tuple[Decision, _Serve]:
        if not isinstance(memory, _Serve):
            memory = _Serve()
        have = signals.ready + len(signals.starting)
        backlog = sum(one.end - one.done for one in signals.partitions.values())
        batches = sum(m.count for m in signals.scored.values())
        rows = sum(m.rows for m in signals.scored.values())
        # A replica that is not idle has a batch in work.
        at_work = min(1.0, batches) * signals.ready * rows / max(batches, 1.0)
        ongoing = min(at_work + backlog, 2.0 * BATCH * signals.ready)
        load = ongoing + (max(0.0, backlog - ongoing) if queue else 0.0)
        loads = (*memory.loads, (signals.at, load))
        loads = tuple(one for one in loads if one[0] > signals.at - look_back)
        desired = _bounded(ceil(sum(v for _, v in loads) / len(loads) / target), policy)
        upwards = desired > have
        if desired == have or memory.since is None or upwards != memory.upwards:
            memory = _Serve(loads, None if desired == have else signals.at, upwards)
            return Decision(have, BATCH, f"{load:.0f} ongoing"), memory
        delay = upscale_delay if upwards else downscale_delay
        if signals.at - memory.since <= delay:
            return Decision(have, BATCH, f"{load:.0f} ongoing"), replace(memory, loads=loads)
        return Decision(desired, BATCH, f"{load:.0f} ongoing"), _Serve(loads)

    return decide


def static(replicas: float) -> Decide:
    """As many as the peak needs, all the time."""

    def decide(_signals: Signals, _memory: Any, _policy: Policy) -> tuple[Decision, None]:
        return Decision(int(replicas), BATCH, "always so many"), None

    return decide


def _flink_peer(name: str, busy_time: bool) -> Peer:
    defaults: Settings = {
        "utilization": 0.7,
        "window": 900.0,
        "stabilization": 300.0,
        "catch_up": 1800.0,
        "restart": 300.0,
        "scale_down_interval": 3600.0,
        "busy_time": float(busy_time),
    }
    grid = {
        "utilization": (0.6, 0.8, 0.95),
        "window": (60.0,),
        "stabilization": (0.0,),
        "catch_up": (60.0, 300.0),
        "restart": (0.0,),
        "scale_down_interval": (0.0, 300.0),
    }
    return Peer(name, flink, defaults, grid)


PEERS: tuple[Peer, ...] = (
    Peer(
        "KEDA + HPA",
        keda,
        {"lag_threshold": 10.0, "stabilization": 300.0},
        {
            "lag_threshold": tuple(REPLICA_RATE * s for s in (5, 7, 10, 15, 20, 30, 45, 60, 120)),
            "stabilization": (60.0, 300.0),
        },
    ),
    _flink_peer("Flink, busy time", busy_time=True),
    _flink_peer("Flink, true rates", busy_time=False),
    Peer(
        "Ray Serve",
        lambda **settings: serve(queue=False, **settings),
        {"target": 2.0, "upscale_delay": 30.0, "downscale_delay": 600.0},
        {
            "target": (4.0, 8.0, 16.0, 32.0, 48.0),
            "upscale_delay": (0.0,),
            "downscale_delay": (30.0, 120.0, 600.0),
        },
    ),
    Peer(
        "Ray Serve, queue",
        lambda **settings: serve(queue=True, **settings),
        {"target": 2.0, "upscale_delay": 30.0, "downscale_delay": 600.0},
        {
            "target": (16.0, 64.0, 200.0, 500.0, 1000.0, 2000.0),
            "upscale_delay": (0.0,),
            "downscale_delay": (30.0, 120.0, 600.0),
        },
    ),
    Peer("static peak", static, {"replicas": float(PEAK_REPLICAS)}, {}),
)
