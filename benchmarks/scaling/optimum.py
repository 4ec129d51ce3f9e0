"""The clairvoyant optimum: the fewest replica-seconds that keep the lag, by linear programming.

It knows every arrival and the mean cold start, orders parts of replicas, and needs no interval of
commits. So no policy can reach it; it is what costs are measured by.
"""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix, eye_array, hstack, vstack

from benchmarks.scaling.simulate import (
    COLD_START_SIGMA,
    MAX_REPLICAS,
    REPLICA_RATE,
    Scenario,
)
from benchmarks.scaling.traces import Trace

STEP_SECONDS = 15


def least_replica_seconds(trace: Trace, scenario: Scenario) -> float:
    """The least that serves the trace within the allowed lag, cold starts paid.

    Variables of each step k: replicas that work n, replicas that start u, records scored in all S
    (in units of what a replica scores in one step). Minimise the sum of n, and of u times the cold
    start, where u[k] >= n[k] - n[k-1] and the first n is free; S grows by at most n, is at most
    what has arrived, and at least what had arrived max_time_lag before.
    """
    unit = REPLICA_RATE * STEP_SECONDS
    arrived = np.concatenate([[0.0], np.cumsum(trace.rates)]) / unit
    ends = np.append(np.arange(STEP_SECONDS, len(trace.rates), STEP_SECONDS), len(trace.rates))
    length = len(ends)
    latest = arrived[ends]
    # What is left at the end of the trace is due too, so that nothing is saved by leaving it.
    due = arrived[np.maximum(0, ends - int(scenario.max_time_lag))]
    due[-1] = latest[-1]
    cold = scenario.cold_start * np.exp(COLD_START_SIGMA**2 / 2) / STEP_SECONDS
    cost = np.concatenate([np.ones(length), np.full(length, cold), np.zeros(length)])
    one, none = eye_array(length), coo_matrix((length, length))
    before = eye_array(length, k=-1)
    starts = hstack([one - before, -one, none]).tocsr()[1:]
    works = hstack([-one, none, one - before])
    solved = linprog(
        cost,
        A_ub=vstack([starts, works]),
        b_ub=np.zeros(2 * length - 1),
        bounds=np.column_stack(
            [
                np.concatenate([np.ones(length), np.zeros(length), due]),
                np.concatenate([np.full(length, MAX_REPLICAS), np.full(length, np.inf), latest]),
            ]
        ),
        method="highs",
    )
    if not solved.success:
        raise ValueError(f"{trace.name}: no number of replicas keeps {scenario.name}")
    return float(solved.fun) * STEP_SECONDS
