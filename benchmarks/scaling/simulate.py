"""A stream, its replicas and a policy, second by second.

Records arrive as the trace says, with Poisson noise. Replicas score them in greedy batches: what
waits is taken at once, up to the largest batch. A batch of b takes `fixed + per_row * b` seconds.
A replica that is ordered becomes ready after a log-normal cold start; it is paid from its order to
its removal. Commits come at fixed intervals, and a record's lag ends with its commit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scaling.traces import Trace
from benchmarks.waiting import SERVICE
from pipeline.capacity import Moments, size_class
from pipeline.control import WaitingOn
from pipeline.demand import Offsets
from pipeline.outlook import Policy, Signals
from pipeline.scale import Decide, Memory

BATCH = 32
REPLICA_RATE = SERVICE.rate(BATCH)
PEAK_REPLICAS = 20
MAX_REPLICAS = 2 * PEAK_REPLICAS
# A decision at the beginning of a step, a commit at its end.
STEP_SECONDS = 5
COLD_START_SIGMA = 0.25
# What the timings of batches differ by.
SERVICE_SIGMA = 0.05
# Records of a partition that a feeder has polled beyond those that are settled.
POLLED = 500


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of a policy: the lag allowed, the median cold start, and what goes wrong.

    With `poisoned`, one of `partitions` stands still from a quarter of the trace on.
    """

    name: str
    max_time_lag: float
    cold_start: float
    partitions: int = 1
    poisoned: bool = False

    @property
    def policy(self) -> Policy:
        """What the policies are told."""
        return Policy(
            min_replicas=1,
            max_replicas=MAX_REPLICAS,
            max_time_lag=self.max_time_lag,
            max_batch_size=BATCH,
            commit_seconds=STEP_SECONDS,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One value for each second: arrivals, replicas ready and paid for, time lag. And the orders.

    `left` are records not scored at the end, `orders` (second, replicas, reason) of each change.
    """

    scenario: Scenario
    rates: npt.NDArray[np.float64]
    ready: npt.NDArray[np.int64]
    paid: npt.NDArray[np.int64]
    lag: npt.NDArray[np.float64]
    left: float
    orders: tuple[tuple[int, int, str], ...]

    @property
    def over(self) -> float:
        """Share of the time over the allowed lag."""
        return float(np.mean(self.lag > self.scenario.max_time_lag))

    @property
    def replica_seconds(self) -> float:
        """What was paid, and what the records that are left would cost."""
        return float(self.paid.sum()) + self.left / REPLICA_RATE

    @property
    def actions_per_hour(self) -> float:
        """Changes of the order."""
        return 3600 * len(self.orders) / len(self.lag)


def simulate(
    trace: Trace, scenario: Scenario, decide: Decide, seed: int = 0, first: int | None = None
) -> Run:
    """Run the policy over the trace, whose peak should be `PEAK_REPLICAS * REPLICA_RATE`.

    It begins with `first` replicas that are ready, by default with what the first minute needs.
    """
    if first is None:
        first = max(1, int(np.ceil(float(np.mean(trace.rates[:60])) / REPLICA_RATE)))
    return _Simulation(trace, scenario, decide, seed, first).run()


class _Simulation:
    def __init__(
        self, trace: Trace, scenario: Scenario, decide: Decide, seed: int, first: int
    ) -> None:
        self._scenario = scenario
        self._decide = decide
        self._random = np.random.default_rng(seed)
        self._rates = trace.rates
        arrivals = self._random.poisson(trace.rates).astype(float)
        length = len(arrivals)
        self._stuck_share = 1 / scenario.partitions if scenario.poisoned else 0.0
        self._stuck_from = length // 4 if scenario.poisoned else length
        healthy = arrivals.copy()
        healthy[self._stuck_from :] *= 1 - self._stuck_share
        # As lists, which are faster to look into one by one.
        self._arrived = [0.0, *np.cumsum(healthy).tolist()]
        self._stuck = [0.0, *np.cumsum(arrivals - healthy).tolist()]
        self._ready = first
        self._fresh_cold_starts = [self._cold_start() for _ in range(first)]
        # (second of the order, second at which it is ready), in the order of the orders.
        self._starting: list[tuple[int, float]] = []
        self._done = 0.0
        self._committed = 0.0
        # Records scored, and seconds in which replicas were ready, since the last decision.
        self._scored = 0.0
        self._replica_seconds = 0
        self._waiting_on = WaitingOn.RECORDS

    def _cold_start(self) -> float:
        return float(self._random.lognormal(np.log(self._scenario.cold_start), COLD_START_SIGMA))

    def run(self) -> Run:
        policy = self._scenario.policy
        length = len(self._rates)
        ready = np.zeros(length, np.int64)
        paid = np.zeros(length, np.int64)
        committed = np.zeros(length)
        orders: list[tuple[int, int, str]] = []
        memory: Any = Memory()
        ordered = self._ready
        for start in range(0, length, STEP_SECONDS):
            stop = min(start + STEP_SECONDS, length)
            decision, memory = self._decide(self._signals(start), memory, policy)
            if decision.replicas != ordered:
                orders.append((start, decision.replicas, decision.reason))
                ordered = decision.replicas
                self._order(ordered, start)
            if self._starting:
                for second in range(start, stop):
                    self._come_up(second)
                    ready[second] = self._ready
                    paid[second] = self._ready + len(self._starting)
                    self._score(second, second + 1)
            else:
                ready[start:stop] = paid[start:stop] = self._ready
                self._score_step(start, stop)
            committed[start:stop] = self._committed
            self._committed = committed[stop - 1] = self._done
        return Run(
            scenario=self._scenario,
            rates=self._rates,
            ready=ready,
            paid=paid,
            lag=self._lags(committed),
            left=self._arrived[-1] - self._done,
            orders=tuple(orders),
        )

    def _order(self, replicas: int, second: int) -> None:
        have = self._ready + len(self._starting)
        for _ in range(replicas - have):
            self._starting.append((second, second + self._cold_start()))
        for _ in range(have - replicas):
            if self._starting:
                self._starting.pop()
            else:
                self._ready -= 1

    def _come_up(self, second: int) -> None:
        if self._starting and any(ready <= second for _, ready in self._starting):
            up = [one for one in self._starting if one[1] <= second]
            self._starting = [one for one in self._starting if one[1] > second]
            self._ready += len(up)
            self._fresh_cold_starts += [ready - ordered for ordered, ready in up]

    def _score_step(self, start: int, stop: int) -> None:
        """A whole step at once where the replicas are busy all along, or have time to spare."""
        arrived, second = self._arrived, self._ready * REPLICA_RATE
        busy = arrived[start] - self._done >= second * (stop - start)
        spare = arrived[start] <= self._done and all(
            arrived[s + 1] - arrived[s] <= second for s in range(start, stop)
        )
        if busy or spare:
            self._score(start, stop)
        else:
            for s in range(start, stop):
                self._score(s, s + 1)

    def _score(self, start: int, stop: int) -> None:
        waiting = self._arrived[stop] - self._done
        capacity = self._ready * REPLICA_RATE * (stop - start)
        scored = min(waiting, capacity)
        self._done += scored
        self._waiting_on = WaitingOn.REPLICAS if waiting > capacity else WaitingOn.RECORDS
        self._scored += scored
        self._replica_seconds += self._ready * (stop - start)

    def _batches(self) -> dict[int, Moments]:
        """What was scored since the last decision, in batches of the size that fits the load."""
        if not self._scored:
            return {}
        each = self._scored / self._replica_seconds
        # The batch at which a greedy replica keeps up with its share.
        spare = 1 - SERVICE.per_row * each
        batch = min(max(SERVICE.fixed * each / spare, 1.0), BATCH) if spare > 0 else BATCH
        seconds = SERVICE.seconds(batch) * float(self._random.lognormal(0, SERVICE_SIGMA))
        return {size_class(batch): Moments.of(batch, seconds, self._scored / batch)}

    def _signals(self, second: int) -> Signals:
        signals = Signals(
            at=float(second),
            partitions=self._partitions(second),
            ready=self._ready,
            starting=tuple(float(second - ordered) for ordered, _ in self._starting),
            scored=self._batches(),
            cold_starts=tuple(self._fresh_cold_starts),
        )
        self._scored, self._replica_seconds, self._fresh_cold_starts = 0.0, 0, []
        return signals

    def _partitions(self, second: int) -> dict[int, Offsets]:
        """All alike, but for the last one once it stands still."""
        number, waiting_on = self._scenario.partitions, self._waiting_on
        standing = second > self._stuck_from
        moving = number - 1 if standing else number

        def share(records: float) -> int:
            # Until it stands still the last one has an equal part of everything.
            common = self._arrived[min(second, self._stuck_from)]
            return int(min(records, common) / number + max(0.0, records - common) / moving)

        end, done = share(self._arrived[second]), share(self._done)
        like_others = Offsets(
            0, end, min(end, done + POLLED), done, share(self._committed), waiting_on
        )
        partitions = dict.fromkeys(range(number), like_others)
        if standing:
            held = int(self._arrived[self._stuck_from] / number)
            end = held + int(self._stuck[second])
            partitions[number - 1] = Offsets(
                0, end, min(end, held + POLLED), held, held, waiting_on
            )
        return partitions

    def _lags(self, committed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Age of the oldest record that is not committed at the end of each second."""
        times = np.arange(1, len(committed) + 1)
        # The second in which the first uncommitted record arrived.
        first = np.searchsorted(self._arrived, committed + 1e-6, side="left") - 1
        waiting = np.array(self._arrived[1:]) - committed > 1e-6
        return np.where(waiting, times - np.minimum(first, times - 1), 0.0)
