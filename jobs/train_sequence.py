"""Trains the sequence model with JAX on the CPU: the only module that needs `train-sequence`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jobs.sequence_model import Parameters, Shape, forward, initial

Sequences = npt.NDArray[np.int64]
# Kingma and Ba 2015; the second moment as SASRec's authors set it.
RATES = (0.9, 0.98)
TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train; training ends once `patience` epochs have not bettered the measure."""

    epochs: int = 40
    patience: int = 8
    batch: int = 16
    rate: float = 1e-3
    dropout: float = 0.3
    seed: int = 0


def windows(histories: list[npt.NDArray[np.int64]], length: int) -> tuple[Sequences, Sequences]:
    """What is seen and what follows each place, `[windows, length]`, padded on the left with 0.

    A long history is cut from its end into windows that together hold each step once.
    """
    seen, following = [], []
    for history in histories:
        for stop in range(len(history), 1, -length):
            part = history[max(0, stop - length - 1) : stop]
            line = np.zeros((2, length), np.int64)
            line[0, length - len(part) + 1 :] = part[:-1]
            line[1, length - len(part) + 1 :] = part[1:]
            seen.append(line[0])
            following.append(line[1])
    return np.stack(seen), np.stack(following)


def fit(
    shape: Shape,
    histories: list[npt.NDArray[np.int64]],
    measure: Callable[[Parameters], float],
    plan: Plan = Plan(),
) -> tuple[Parameters, list[float]]:
    """The parameters with the best `measure`, and its course over the epochs."""
    seen, following = windows(histories, shape.length)
    parameters = jax.tree.map(jnp.asarray, initial(shape, plan.seed))
    state = (parameters, *(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)))
    step = jax.jit(_step, static_argnames=("rate", "dropout"))
    key, course, best = jax.random.key(plan.seed), [], parameters
    number = 0
    for order in _orders(len(seen), plan):
        for rows in order:
            key, own = jax.random.split(key)
            number += 1
            state = step(
                state,
                number,
                seen[rows],
                following[rows],
                own,
                rate=plan.rate,
                dropout=plan.dropout,
            )
        course.append(measure({name: np.asarray(one) for name, one in state[0].items()}))
        if course[-1] == max(course):
            best = state[0]
        elif len(course) - 1 - int(np.argmax(course)) >= plan.patience:
            break
    return {name: np.asarray(one) for name, one in best.items()}, course


def _orders(count: int, plan: Plan) -> Iterator[list[npt.NDArray[np.int64]]]:
    """For each epoch the rows of its batches; the last, smaller one is left out."""
    generator = np.random.default_rng(plan.seed)
    batch = min(plan.batch, count)
    for _ in range(plan.epochs):
        order = generator.permutation(count)
        yield [order[start : start + batch] for start in range(0, count - batch + 1, batch)]


def _loss(parameters: Parameters, seen: Any, following: Any, key: Any, dropout: float) -> jax.Array:
    """Cross entropy of what follows, over all items."""
    keys = iter(jax.random.split(key, 64))

    def drop(values: Any) -> Any:
        kept = jax.random.bernoulli(next(keys), 1 - dropout, values.shape)
        return jnp.where(kept, values / (1 - dropout), 0.0)

    states = forward(parameters, seen, jnp, drop)
    logits = states @ parameters["items"].T
    logits = logits.at[..., 0].set(-1e9)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), following[..., None], axis=-1)
    known = following != 0
    return -jnp.where(known, chosen[..., 0], 0.0).sum() / known.sum()


def _step(
    state: Any, number: Any, seen: Any, following: Any, key: Any, rate: float, dropout: float
) -> Any:
    """One step of Adam."""
    parameters, first, second = state
    slope = jax.grad(_loss)(parameters, seen, following, key, dropout)
    one, two = RATES
    first = jax.tree.map(lambda m, g: one * m + (1 - one) * g, first, slope)
    second = jax.tree.map(lambda v, g: two * v + (1 - two) * g * g, second, slope)

    def moved(value: Any, m: Any, v: Any) -> Any:
        mean, square = m / (1 - one**number), v / (1 - two**number)
        return value - rate * mean / (jnp.sqrt(square) + TINY)

    return jax.tree.map(moved, parameters, first, second), first, second
