"""Demand over time: recorded traces, synthetic ones, and any CSV of seconds and rates."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent / "traces"
SMOOTH_SECONDS = 60
FLASH_SECONDS = 4 * 3600


@dataclass(frozen=True, slots=True)
class Trace:
    """Records per second, one value for each second."""

    name: str
    rates: npt.NDArray[np.float64]

    def scaled(self, peak: float) -> "Trace":
        """The same shape, its busiest minute at `peak` records per second."""
        window = np.ones(min(SMOOTH_SECONDS, len(self.rates)))
        busiest = float(np.convolve(self.rates, window / len(window), "valid").max())
        return Trace(self.name, self.rates * (peak / busiest))

    def first(self, seconds: int) -> "Trace":
        """Its beginning."""
        return Trace(self.name, self.rates[:seconds])


def read(path: Path) -> Trace:
    """A CSV with columns seconds and records_per_second, straight lines between its points.

    Raises ValueError where the columns are missing, or seconds do not ascend.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        seconds = np.array([float(row["seconds"]) for row in rows])
        rates = np.array([float(row["records_per_second"]) for row in rows])
    except KeyError as missing:
        raise ValueError(f"{path}: there is no column {missing}") from None
    if len(seconds) < 2 or np.any(np.diff(seconds) <= 0) or np.any(rates < 0):
        raise ValueError(
            f"{path}: seconds must ascend, over two rows at least, and rates not be < 0"
        )
    grid = np.arange(seconds[0], seconds[-1])
    return Trace(path.stem, np.interp(grid, seconds, rates))


def step() -> Trace:
    """Quiet, then four times as much at once for an hour and a half, then quiet again."""
    return _pieces("step", [(3600, 0.22), (5400, 0.9), (3600, 0.22), (1800, 1.0)])


def flash() -> Trace:
    """A low base with three flash crowds: up within a minute, fading over ten."""
    return _crowds("flash", [(3000, 0.6), (7000, 0.85), (11500, 0.7)])


def crowds(seed: int) -> Trace:
    """Like `flash`, with crowds that come when they like and are as large as they like."""
    random = np.random.default_rng(seed)
    starts = np.sort(random.uniform(1200, FLASH_SECONDS - 1200, 3))
    return _crowds(f"flash_{seed}", [(int(at), float(random.uniform(0.4, 0.85))) for at in starts])


def _crowds(name: str, crowds: list[tuple[int, float]]) -> Trace:
    seconds = np.arange(FLASH_SECONDS)
    rates = np.full(len(seconds), 0.15)
    for start, height in crowds:
        since = seconds - start
        rise = np.clip(since / 60.0, 0.0, 1.0)
        fade = np.exp(-np.clip(since - 60, 0, None) / 600.0)
        rates += height * rise * fade
    return Trace(name, rates)


def on_off() -> Trace:
    """Ten minutes busy, ten minutes nearly nothing, and so on."""
    return _pieces("on_off", [(600, level) for _ in range(12) for level in (0.1, 0.85)])


def markov(seed: int) -> Trace:
    """Markov-modulated: five levels, each held for seven minutes on average, then any other."""
    random = np.random.default_rng(seed)
    levels = np.array([0.1, 0.25, 0.45, 0.7, 1.0])
    pieces: list[tuple[int, float]] = []
    level = 1
    while sum(seconds for seconds, _ in pieces) < 4 * 3600:
        pieces.append((int(random.exponential(420)) + 30, float(levels[level])))
        level = int((level + random.integers(1, len(levels))) % len(levels))
    return _pieces(f"markov_{seed}", pieces)


def _pieces(name: str, pieces: list[tuple[int, float]]) -> Trace:
    return Trace(name, np.concatenate([np.full(seconds, level) for seconds, level in pieces]))


SYNTHETIC: tuple[Callable[[], Trace], ...] = (
    step,
    flash,
    on_off,
    lambda: markov(1),
    lambda: markov(2),
)


def recorded() -> list[Trace]:
    """Those of the folder; its notice says where they come from."""
    return [read(path) for path in sorted(FOLDER.glob("*.csv"))]


def all_traces() -> list[Trace]:
    """The recorded ones, then the synthetic ones."""
    return recorded() + [make() for make in SYNTHETIC]


def unseen_traces() -> list[Trace]:
    """What no constant was chosen on: the recorded ones backwards, and other draws by chance."""
    backwards = [Trace(f"{one.name}_backwards", one.rates[::-1].copy()) for one in recorded()]
    return [*backwards, *(markov(seed) for seed in (3, 4, 5)), crowds(1), crowds(2)]
