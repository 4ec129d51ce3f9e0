"""A plain producer, for records that come from outside: no transaction, each one acknowledged."""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, Producer

from pipeline.edges.kafka.clients import ignored, producer_settings, translating

# A second of a fast stream; what does not fit waits for what is being sent.
QUEUE_ROWS = 200_000
BATCH_BYTES = 1_000_000


class KafkaProducer:
    """Writes to one topic, partitioned by key as Java clients do. Owned by one thread.

    `limit` is the topic's max.message.bytes, which the broker applies to whole batches.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, limit: int) -> None:
        self._topic = topic
        self.sent = 0
        self.failed = 0
        self.problem = ""
        self._producer = Producer(
            {
                **producer_settings(settings, QUEUE_ROWS, limit),
                "batch.size": max(1, min(BATCH_BYTES, limit)),
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
                "error_cb": ignored,
            }
        )

    def _on_delivery(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self.failed += 1
            self.problem = self.problem or f"{error.name()}: {error.str()}"

    def send(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Queue records given as key and value; waits while the queue is full.

        Raises ClusterUnfit and Retriable where librdkafka refuses a record at once.
        """
        produce, topic = self._producer.produce, self._topic
        with translating(f"producing to {topic}"):
            for key, value in records:
                while True:
                    try:
                        produce(topic, value, key)
                    except BufferError:
                        # Room comes by itself: a record fails at the latest at its time-out.
                        self._producer.poll(0.05)
                    else:
                        break
                self.sent += 1
        self._producer.poll(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, and serve delivery reports meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._producer.poll(left)

    def finish(self, seconds: float) -> int:
        """Wait for what is queued; returns how many records are neither delivered nor failed."""
        return int(self._producer.flush(seconds))
