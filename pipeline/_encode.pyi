"""The compiled part of `pipeline.encode`, in `_encode.cpp`."""

from typing import Any, TypeAlias

# Letter of the type (b, h, i, q: integers of 8 to 64 bits; f, d: floats; ?: bool; s: string; l:
# list), first value in the buffers, bitmap of what is there (or None), values (of strings and
# lists: int32 offsets), and then the bytes of strings, the column of a list's elements, or None.
Column: TypeAlias = tuple[str, int, Any | None, Any, "Any | Column | None"]

def encode(rows: int, literals: list[bytes], columns: list[Column]) -> tuple[bytes, bytes]:
    """Write each row's values between the literals, without holding the interpreter's lock.

    Returns int32 offsets [rows + 1] and the text. Raises OverflowError beyond 2 GiB of it.
    """
