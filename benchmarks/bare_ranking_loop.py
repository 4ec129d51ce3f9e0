"""The bare loop for recommendations: histories in, the best ten items out, no guarantee.

What `benchmarks.bare_loop` is for cards, with the same care: lists become a matrix in NumPy.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Message, Producer

from benchmarks.bare_loop import ParquetRows, loop, wait_for_room
from benchmarks.recommending import ITEMS, K
from benchmarks.scoring import MODEL_NAME, MODEL_VERSION, STANDARD, standard_columns

SCHEMA = pa.schema(
    {
        **STANDARD,
        "id": pa.int64(),
        "items": pa.list_(pa.int64()),
        "scores": pa.list_(pa.float32()),
    }
)


class Event(msgspec.Struct, gc=False):
    """One visit as it comes."""

    id: int
    history: list[int]


class Prediction(msgspec.Struct, gc=False):
    """One list as it goes out; the same fields as Headrace's."""

    source: tuple[int, int]
    model: str
    model_version: str
    id: int
    items: list[int]
    scores: list[float]


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def score(
    messages: Sequence[Message], session: Any, producer: Producer, topic: str, rows: ParquetRows
) -> None:
    """One batch through all stages. Raises KafkaException for an error in place of a record."""
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
    events = [_decode(message.value()) for message in messages]
    size = len(events)
    lengths = np.fromiter((len(event.history) for event in events), np.int64, size)
    flat = np.fromiter(chain.from_iterable(event.history for event in events), np.int64)
    seen = np.zeros((size, ITEMS), np.bool_)
    seen[np.repeat(np.arange(size), lengths), flat - 1] = True
    feeds = {"history": seen.astype(np.float32), "blocked": seen, "k": np.array([K])}
    scores, best = session.run(["scores", "best"], feeds)
    items = best + 1
    partitions = [message.partition() for message in messages]
    offsets = [message.offset() for message in messages]
    keys = [message.key() for message in messages]
    times = [message.timestamp()[1] for message in messages]
    produce = producer.produce
    for key, partition, offset, event, listed, values in zip(
        keys, partitions, offsets, events, items.tolist(), scores.tolist(), strict=True
    ):
        prediction = Prediction(
            (partition, offset), MODEL_NAME, MODEL_VERSION, event.id, listed, values
        )
        text = _encode(prediction)
        try:
            produce(topic, text, key, partition)
        except BufferError:
            wait_for_room(producer)
            produce(topic, text, key, partition)
    producer.poll(0)
    bounds = pa.array(np.arange(size + 1) * K, pa.int32())
    columns = [
        *standard_columns(messages[0].topic(), partitions, offsets, keys, times),
        pa.array([event.id for event in events], pa.int64()),
        pa.ListArray.from_arrays(bounds, pa.array(items.reshape(-1))),
        pa.ListArray.from_arrays(bounds, pa.array(scores.reshape(-1))),
    ]
    rows.add(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


if __name__ == "__main__":
    loop(score, SCHEMA)
