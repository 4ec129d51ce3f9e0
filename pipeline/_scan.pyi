"""The compiled part of `pipeline.json_flat`, in `_scan.cpp`."""

from typing import Any, TypeAlias

# name, kind (f, d: floats; i, q: integers of 32 and 64 bits; ?: bool; s: string; l: array of any
# length, of integers of 64 bits), elements of a vector or -1, largest absolute value, buffer of all
# rows, first byte in it, bytes from row to row, one byte a row for what is present (or None:
# required), bytes for what is absent (or None), bytes for what is null (or None), whether another
# type counts as null. Targets of one name are adjacent.
Target: TypeAlias = tuple[
    str, str, int, float, Any, int, int, Any | None, bytes | None, bytes | None, bool
]

# An Arrow binary array: the place of its first offset, the buffers of offsets and of data.
Values: TypeAlias = tuple[int, Any, Any]

def scan(
    rows: int, values: Values, targets: list[Target], forbid_unknown: bool
) -> tuple[list[int], list[bytes]]:
    """Read flat JSON objects into the targets' buffers, without holding the interpreter's lock.

    Returns the rows that are doubted, whose places mean nothing, and for each target all that it
    has of no fixed size in one piece: its buffer holds the end of each row's (int64, in bytes).
    A null is read as the bytes at its place.
    """
