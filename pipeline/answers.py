"""Answers as they stand in the topics: which record each one is for, and what it says."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from pipeline.batch import Headers
from pipeline.dead_letters import PREFIX
from pipeline.marks import Offsets
from pipeline.ports import Records


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of one input partition: whose they are, where they stand, and what they say."""

    sources: Offsets
    offsets: list[int]
    keys: list[bytes | None]
    values: list[dict[str, Any]]


def by_source(records: Records) -> tuple[dict[int, Predictions], list[int]]:
    """Predictions by the partition of their record, and the indexes of records that are none."""
    parts: dict[int, tuple[list[int], list[int], list[dict[str, Any]]]] = {}
    strange = []
    for index, value in enumerate(records.values):
        found = _prediction(value)
        if found is None:
            strange.append(index)
            continue
        partition, offset = found["source"]
        sources, indexes, values = parts.setdefault(partition, ([], [], []))
        sources.append(offset)
        indexes.append(index)
        values.append(found)
    return {
        partition: Predictions(
            np.array(sources, np.int64),
            [records.offsets[i] for i in indexes],
            [records.keys[i] for i in indexes],
            values,
        )
        for partition, (sources, indexes, values) in parts.items()
    }, strange


def _prediction(value: bytes | None) -> dict[str, Any] | None:
    """A prediction as an object that names its record, None where it is none."""
    try:
        found: Any = msgspec.json.decode(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    source = found.get("source") if isinstance(found, dict) else None
    if not isinstance(source, list) or len(source) != 2:
        return None
    partition, offset = source
    if type(partition) is not int or type(offset) is not int:
        return None
    return found if 0 <= partition < 1 << 31 and 0 <= offset < 1 << 62 else None


def letter_source(headers: Headers, topic: str) -> tuple[int, int] | None:
    """The partition and offset that a dead letter names, None where it is none of this input's."""
    said = {name: content or b"" for name, content in headers or []}
    numbers = [said.get(f"{PREFIX}errors.{name}", b"") for name in ("partition", "offset")]
    if said.get(f"{PREFIX}errors.topic") != topic.encode() or not all(
        number.isdigit() and len(number) <= 18 for number in numbers
    ):
        return None
    return int(numbers[0]), int(numbers[1])
