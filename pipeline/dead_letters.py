"""A dead letter: the original record, and headers that say why no prediction was made of it."""

import hashlib
from typing import Any

from pipeline.batch import Headers, Partition, Reject

PREFIX = "__dlq."
# Enough to read a message by; what failed is in the value itself.
MESSAGE_BYTES = 1000


def dead_letter(
    reject: Reject,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    partition: Partition,
    offset: int,
    model: tuple[str, str],
    limit: int,
) -> tuple[bytes | None, bytes | None, list[tuple[str, Any]]]:
    """Key, value and headers of the dead letter.

    Headers of an earlier failure give way to those of this one. A value over `limit` bytes is cut;
    `__dlq.value.truncated` then holds its length and `__dlq.value.sha256` its digest.
    """
    kept = [(name, content) for name, content in headers or [] if not name.startswith(PREFIX)]
    added: dict[str, str] = {
        "errors.topic": partition.topic,
        "errors.partition": str(partition.number),
        "errors.offset": str(offset),
        "errors.stage": reject.stage,
        "errors.exception": reject.exception,
        "errors.message": reject.message,
        "errors.model": model[0],
        "errors.model.version": model[1],
    }
    if value is not None and len(value) > limit:
        added["value.truncated"] = str(len(value))
        added["value.sha256"] = hashlib.sha256(value).hexdigest()
        value = value[:limit]
    encoded = [
        (PREFIX + name, text.encode("utf-8", "replace")[:MESSAGE_BYTES])
        for name, text in added.items()
    ]
    return key, value, [*kept, *encoded]
