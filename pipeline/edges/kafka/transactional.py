"""Writes a slot's output and its offsets in one transaction: `delivery: exactly_once`."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from confluent_kafka import KafkaError, KafkaException

from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.clients import (
    CALL_SECONDS,
    COMMIT_SECONDS,
    LARGEST_RECORD,
    asked_again,
    producer_settings,
    send_offsets,
    translate,
    translating,
)
from pipeline.edges.kafka.offsets import GroupOffsets, with_metadata
from pipeline.edges.kafka.producing import Open, open_producer, produce
from pipeline.errors import ClusterUnfit, Fenced, HeadraceError, OutcomeUnknown
from pipeline.ports import Claimed

CLAIM_SECONDS = 30.0
STATISTICS_MS = 100
# How long to wait for figures that are due each `STATISTICS_MS`.
STATISTICS_SECONDS = 5.0


class _Broker(msgspec.Struct):
    disconnects: int = 0
    req_timeouts: int = 0
    req: dict[str, int] = {}


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Requests so far that decide whether a commit's end may still be on its way."""

    end_transaction: int = 0
    interruptions: int = 0


def _traffic(statistics: str) -> _Traffic:
    brokers = msgspec.json.decode(statistics, type=_Statistics).brokers.values()
    return _Traffic(
        sum(broker.req.get("EndTxn", 0) for broker in brokers),
        sum(broker.disconnects + broker.req_timeouts for broker in brokers),
    )


def _resumed(call: Callable[[], None]) -> None:
    """Make a call of the transaction; one that timed out is taken up again until the deadline."""
    asked_again(call, lambda error: bool(error.retriable()), COMMIT_SECONDS)


class TransactionalSink:
    """Predictions, dead letters, journal and offsets in one Kafka transaction.

    librdkafka 2.16 speaks the first version of the transaction protocol, in which an EndTxn that
    arrives late can end the next transaction. A commit that may have left one on its way (more
    than one was sent, or a connection broke or timed out) so makes this sink end before its next
    begin: the successor's `init_transactions` bumps the epoch, and the late request finds nobody.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        group: str,
        transactional_id: str,
        queue_rows: int,
        largest_record: int = LARGEST_RECORD,
        open_producer: Open = open_producer,
    ) -> None:
        self._offsets = GroupOffsets(settings, group)
        self._producer = open_producer(
            {
                **producer_settings(settings, queue_rows, largest_record),
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 60_000,
                "statistics.interval.ms": STATISTICS_MS,
            }
        )
        self._id = transactional_id
        self._layout: Layout | None = None
        self._epoch = 0
        self._before: _Traffic | None = None
        self._seen = 0

    def claim(
        self, assignment: Assignment, opening: Callable[[Claimed], Iterable[Outgoing]]
    ) -> Claimed:
        """Init, stable read, and the same offsets again one epoch later, in this order."""
        with translating(f"claiming {self._id}"):
            self._producer.init_transactions(CLAIM_SECONDS)
        plan = self._offsets.claim_positions(assignment, metadata_kept=True)
        self._layout, self._epoch = assignment.present_layout, plan.epoch
        claimed = Claimed(plan.positions, plan.epoch)
        self.write(opening(claimed), plan.positions, 0)
        return claimed

    def write(
        self, records: Iterable[Outgoing], positions: Mapping[Partition, int], sequence: int
    ) -> None:
        """One transaction."""
        assert self._layout is not None
        offsets = with_metadata(positions, self._layout, self._epoch, sequence)
        try:
            before = self._settled_traffic()
            self._producer.begin_transaction()
            produce(self._producer, records)
            group = self._offsets.group_metadata()
            send = self._producer.send_offsets_to_transaction
            _resumed(lambda: send_offsets(send, offsets, group, CALL_SECONDS))
            _resumed(lambda: self._producer.commit_transaction(CALL_SECONDS))
        except KafkaException as problem:
            raise self._ended(problem.args[0]) from problem
        self._producer.poll(0)
        self._before, self._seen = before, self._producer.statistics()[0]

    def _settled_traffic(self) -> _Traffic:
        """Traffic up to now; raises OutcomeUnknown where the last commit may be on its way."""
        deadline = time.monotonic() + STATISTICS_SECONDS
        self._producer.poll(0)
        while (heard := self._producer.statistics())[0] == self._seen:
            if time.monotonic() > deadline:
                raise OutcomeUnknown(f"{self._id}: librdkafka gave no statistics")
            self._producer.poll(STATISTICS_MS / 1000)
        now, before = _traffic(heard[1]), self._before
        if before is not None and (
            now.end_transaction - before.end_transaction != 1
            or now.interruptions != before.interruptions
        ):
            raise OutcomeUnknown(
                f"{self._id}: the last commit took {now.end_transaction - before.end_transaction} "
                f"EndTxn requests and {now.interruptions - before.interruptions} connections broke "
                "or timed out meanwhile; a late one could end the next transaction"
            )
        return now

    def _ended(self, error: KafkaError) -> HeadraceError:
        """What the error means for the slot; aborts where that is what librdkafka asks for."""
        # A call of a producer that was fenced meanwhile may say only that it ran out of time.
        ours = translate(self._producer.fatal() or error, f"transaction of {self._id}")
        if isinstance(ours, Fenced):
            return ours
        if error.txn_requires_abort() or isinstance(ours, ClusterUnfit):
            try:
                self._producer.abort_transaction(CALL_SECONDS)
            except KafkaException as problem:
                return OutcomeUnknown(f"{ours}; and its abort: {problem.args[0].str()}")
            return ours
        return OutcomeUnknown(str(ours))

    def tend(self) -> None:
        """Take the statistics in, which would pile up otherwise."""
        with translating(f"tending {self._id}"):
            self._producer.poll(0)

    def close(self) -> None:
        """Drop what is not committed; the next claim aborts it."""
        self._producer.purge()
        self._offsets.close()
