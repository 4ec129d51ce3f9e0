"""Sets of offsets in little memory: a bit each, and nothing for windows that are full.

An audit of 100 million rows so holds some megabytes, however its streams are mixed.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WINDOW = 1 << 16
_FULL = np.full(WINDOW // 8, 255, np.uint8)


class Marks:
    """A set of offsets of one partition."""

    def __init__(self) -> None:
        # Full windows share one array.
        self._windows: dict[int, npt.NDArray[np.uint8]] = {}

    def add(self, offsets: Offsets) -> Mask:
        """Put offsets `[n]` in; tells which were in before, be it by an earlier one of them."""
        fresh = np.zeros(len(offsets), np.bool_)
        fresh[np.unique(offsets, return_index=True)[1]] = True
        numbers = offsets // WINDOW
        for number in np.unique(numbers).tolist():
            here = numbers == number
            places = offsets[here] - number * WINDOW
            bits = self._bits(number)
            fresh[here] &= ~bits[places]
            bits[places] = True
            self._keep(number, bits)
        return ~fresh

    def add_range(self, first: int, following: int) -> None:
        """Put all of `[first, following)` in."""
        for number, low, high in _windows(first, following):
            bits = self._bits(number)
            bits[low:high] = True
            self._keep(number, bits)

    def mask(self, first: int, following: int) -> Mask:
        """Which offsets of `[first, following)` are in."""
        found = np.zeros(following - first, np.bool_)
        for number, low, high in _windows(first, following):
            if number in self._windows:
                at = number * WINDOW - first
                found[at + low : at + high] = self._bits(number)[low:high]
        return found

    def has(self, offsets: Offsets) -> Mask:
        """Which of the offsets `[n]` are in."""
        found = np.zeros(len(offsets), np.bool_)
        numbers = offsets // WINDOW
        for number in np.unique(numbers).tolist():
            if number in self._windows:
                here = numbers == number
                found[here] = self._bits(number)[offsets[here] - number * WINDOW]
        return found

    def from_offset(self, first: int) -> Offsets:
        """The offsets that are in and not below `first`, ascending."""
        found = [np.empty(0, np.int64)]
        for number in sorted(self._windows):
            if (number + 1) * WINDOW > first:
                inside = np.flatnonzero(self._bits(number)) + number * WINDOW
                found.append(inside[inside >= first])
        return np.concatenate(found)

    def _bits(self, number: int) -> Mask:
        packed = self._windows.get(number)
        if packed is None:
            return np.zeros(WINDOW, np.bool_)
        return np.unpackbits(packed).view(np.bool_)

    def _keep(self, number: int, bits: Mask) -> None:
        self._windows[number] = _FULL if bits.all() else np.packbits(bits)


def _windows(first: int, following: int) -> Iterator[tuple[int, int, int]]:
    """The windows that a range touches, with the part of each that it covers."""
    at = first
    while at < following:
        number = at // WINDOW
        end = min(following, (number + 1) * WINDOW)
        yield number, at - number * WINDOW, end - number * WINDOW
        at = end
