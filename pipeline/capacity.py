"""What a replica can do: its service time, fitted from batches, and how long it takes to start."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.control import Timing

# Of the sums over batches of one size, what is kept from one decision to the next: the fit then
# follows a model or a node that has become slower within a minute.
KEPT = 0.9
# Below this spread of batch sizes (variance over squared mean) a line cannot be told from noise.
MIN_SPREAD = 0.01


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over scored batches: of ones, rows, rows squared, seconds, and rows times seconds.

    They are all that a least-squares line needs, so that batches need not be kept.
    """

    count: float = 0.0
    rows: float = 0.0
    rows_squared: float = 0.0
    seconds: float = 0.0
    rows_seconds: float = 0.0

    def plus(self, other: "Moments") -> "Moments":
        """The sums of both."""
        return Moments(
            self.count + other.count,
            self.rows + other.rows,
            self.rows_squared + other.rows_squared,
            self.seconds + other.seconds,
            self.rows_seconds + other.rows_seconds,
        )

    def scaled(self, factor: float) -> "Moments":
        """The same batches with another weight."""
        return Moments(
            self.count * factor,
            self.rows * factor,
            self.rows_squared * factor,
            self.seconds * factor,
            self.rows_seconds * factor,
        )

    @staticmethod
    def of(rows: float, seconds: float, count: float = 1.0) -> "Moments":
        """`count` batches alike."""
        return Moments(
            count, count * rows, count * rows * rows, count * seconds, count * rows * seconds
        )


# Batches by the power of two of their size.
BySize: TypeAlias = Mapping[int, Moments]


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Seconds of a batch of b rows: `fixed + per_row * b`."""

    fixed: float
    per_row: float

    def seconds(self, rows: float) -> float:
        """The time of one batch."""
        return self.fixed + self.per_row * rows

    def rate(self, rows: float) -> float:
        """Records per second of a replica that scores batches of this size without a pause."""
        return rows / self.seconds(rows)


def size_class(rows: float) -> int:
    """The power of two of a batch's size, so that 32 to 63 rows are one class."""
    return int(rows).bit_length() - 1


def timed(timings: Iterable[Timing], known: BySize | None = None) -> BySize:
    """Add batches to those known; one without a record says nothing of what records take."""
    found = dict(known or {})
    for timing in timings:
        if timing.rows:
            size = size_class(timing.rows)
            batch = Moments.of(timing.rows, timing.service_seconds)
            found[size] = found.get(size, Moments()).plus(batch)
    return found


def merged(known: BySize, fresh: BySize) -> BySize:
    """Take fresh batches in; classes that were not seen keep what they have."""
    return {
        size: known.get(size, Moments()).scaled(KEPT).plus(fresh[size])
        if size in fresh
        else known[size]
        for size in sorted({*known, *fresh})
    }


def fit(scored: BySize) -> ServiceTime | None:
    """The line through the batches by least squares, each size class with the same weight.

    So an idle hour of small batches does not drown what a full one takes. None before there are
    any; where all are of one size, half of their time counts as fixed, which errs least.
    """
    total = Moments()
    for moments in scored.values():
        total = total.plus(moments.scaled(1 / moments.count))
    if total.count == 0 or total.seconds <= 0:
        return None
    mean_rows, mean_seconds = total.rows / total.count, total.seconds / total.count
    variance = total.rows_squared / total.count - mean_rows**2
    if variance <= MIN_SPREAD * mean_rows**2:
        return ServiceTime(mean_seconds / 2, mean_seconds / mean_rows / 2)
    covariance = total.rows_seconds / total.count - mean_rows * mean_seconds
    per_row = min(max(covariance / variance, 0.0), mean_seconds / mean_rows)
    return ServiceTime(mean_seconds - per_row * mean_rows, per_row)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
