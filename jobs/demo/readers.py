"""Reads what the job wrote to Kafka: predictions while they come, dead letters at the end.

With confluent-kafka's consumer, as any downstream service would.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from jobs.demo.workload import DemoFailed

AT_ONCE = 2000
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter as its headers tell it."""

    key: bytes | None
    stage: str
    exception: str
    message: str


class Predictions:
    """Reads the predictions as they become visible; owns its thread until `finish`."""

    def __init__(self, settings: Mapping[str, str], topic: str, partitions: int) -> None:
        self._settings = settings
        self._topic = topic
        self._partitions = partitions
        # One entry a prediction: (key, seconds since the epoch when it could be read).
        self._seen: list[tuple[bytes | None, float]] = []
        self._failure: KafkaException | None = None
        self._expected: int | None = None
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._read, name="predictions", daemon=True)
        self._thread.start()

    def finish(self, expected: int) -> list[tuple[bytes | None, float]]:
        """All predictions, once `expected` are there or 20 s have passed."""
        self._deadline, self._expected = time.monotonic() + SECONDS, expected
        self._thread.join()
        if self._failure is not None:
            raise DemoFailed(f"the predictions cannot be read: {self._failure}")
        return self._seen

    def _read(self) -> None:
        with closing(_consumer(self._settings)) as consumer:
            places = [TopicPartition(self._topic, n, 0) for n in range(self._partitions)]
            consumer.assign(places)
            try:
                while not self._complete():
                    messages = _checked(consumer.consume(AT_ONCE, 0.05))
                    now = time.time()
                    self._seen += [(key, now) for key in map(Message.key, messages)]
            except KafkaException as problem:
                self._failure = problem

    def _complete(self) -> bool:
        enough = self._expected is not None and len(self._seen) >= self._expected
        return enough or time.monotonic() > self._deadline


@contextmanager
def reading(settings: Mapping[str, str], topic: str, partitions: int) -> Iterator[Predictions]:
    """Read predictions meanwhile, and stop in any case."""
    predictions = Predictions(settings, topic, partitions)
    try:
        yield predictions
    finally:
        predictions.finish(0)


def dead_letters(settings: Mapping[str, str], topic: str, expected: int) -> list[Letter]:
    """The dead letters, at least `expected` unless they do not come within 20 s."""
    letters: list[Letter] = []
    deadline = time.monotonic() + SECONDS
    with closing(_consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while len(letters) < expected and time.monotonic() < deadline:
            letters += [_letter(message) for message in _checked(consumer.consume(AT_ONCE, 0.2))]
    return letters


def _letter(message: Any) -> Letter:
    headers = {name: content.decode() for name, content in message.headers() or []}
    stage, exception, text = (
        headers.get(f"__dlq.errors.{name}", "") for name in ("stage", "exception", "message")
    )
    return Letter(message.key(), stage, exception, text)


def _consumer(settings: Mapping[str, str]) -> Any:
    return Consumer(
        {
            **settings,
            "group.id": "headrace-demo-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )


def _checked(messages: list[Any]) -> list[Any]:
    for message in messages:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
            raise KafkaException(error)
    return messages
