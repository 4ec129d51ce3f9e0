"""The demo's fraud workload: card transactions that the model has never seen, and their labels.

The events carry no label. It is joined on `id` afterwards, as a bank learns of a fraud weeks after
the payment.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import metrics
from jobs.demo.workload import ROOT, Broken, DemoFailed, Event, Verdict, Workload
from pipeline import records

HOLDOUT = ROOT / "data" / "creditcard" / "holdout.parquet"
LABEL = "Class"
FALSE_POSITIVE_RATE = 0.01
# Grover et al. 2022 (amazon-science/fraud-dataset-benchmark, ccfraud), the same split by time:
# ROC AUC, recall at 1 % false positives.
PUBLISHED = (
    ("H2O", 0.992, 0.853),
    ("Amazon Fraud Detector, TFI", 0.990, 0.88),
    ("AutoGluon", 0.990, 0.88),
    ("Auto-sklearn", 0.988, 0.88),
    ("Amazon Fraud Detector, OFI", 0.985, 0.88),
)


def workload() -> Workload:
    """Put it together. Raises DemoFailed where the data is missing."""
    if not HOLDOUT.is_file():
        raise DemoFailed(f"{HOLDOUT} is missing: run the demo in a checkout of the repository")
    return Workload(
        name="fraud",
        title="card fraud",
        story=(
            "Real card payments of two days in 2013 stream through Kafka. Replicas on Ray score "
            "them with an ONNX model that has never seen them; predictions go to Kafka and "
            "Parquet. The events carry no label: whether a payment was a fraud is joined on its "
            "id afterwards, as a bank learns of it weeks later."
        ),
        config=ROOT / "configs" / "fraud.yaml",
        size=pq.read_metadata(HOLDOUT).num_rows,
        events=events,
        broken=broken,
        judge=judge,
        columns=("id", "score", "flagged", "model_version"),
        highest="score",
    )


def events(limit: int) -> Iterator[Event]:
    """The first `limit` transactions as JSON, keyed by id, in the order of time."""
    return itertools.islice(records.read(str(HOLDOUT), key="id", drop=[LABEL]), limit)


def broken() -> tuple[Broken, ...]:
    """Six events, each wrong in its own way, made from the first transaction."""
    ((_, value),) = events(1)
    good: dict[str, Any] = msgspec.json.decode(value)

    def other(name: str, literal: bytes) -> bytes:
        marked = msgspec.json.encode({**good, name: "here"})
        return marked.replace(b'"here"', literal)

    wrong: dict[str, bytes | None] = {
        "JSON cut off in the middle": value[: len(value) // 2],
        "field V14 left out": msgspec.json.encode({k: v for k, v in good.items() if k != "V14"}),
        "V4 is a text": other("V4", b'"high"'),
        "no value at all (a tombstone)": None,
        "Amount is NaN": other("Amount", b"NaN"),
        "V10 = 1e39, beyond float32": other("V10", b"1e39"),
    }
    return tuple(
        Broken(f"broken-{number}".encode(), what, made)
        for number, (what, made) in enumerate(wrong.items(), 1)
    )


def judge(rows: pa.Table, path: Path = HOLDOUT) -> Verdict | None:
    """Join the labels on `id` and measure; None where the rows hold one class only."""
    labelled = pq.read_table(path, columns=["id", LABEL])
    joined = rows.select(["id", "score"]).join(labelled, keys="id", join_type="inner")
    labels = joined[LABEL].to_numpy()
    frauds = int(labels.sum())
    if frauds in {0, len(labels)}:
        return None
    counts = metrics.tally(labels, joined["score"].to_numpy())
    auc = float(metrics.roc_auc(counts))
    recall = float(metrics.recall_at(counts, FALSE_POSITIVE_RATE))
    whole = joined.num_rows == labelled.num_rows
    published = [(name, f"{one:.3f}", f"{other:.3f}") for name, one, other in PUBLISHED]
    remarks = [f"One of {frauds} frauds is {1 / frauds:.3f} of recall: smaller steps say nothing."]
    if not whole:
        published = []
        remarks.append(
            f"These are {joined.num_rows:,} of {labelled.num_rows:,} transactions: leave --records "
            "out to compare with published figures."
        )
    return Verdict(
        title=f"How good are the scores? {frauds} frauds in {joined.num_rows:,} payments",
        columns=("model", "ROC AUC", "recall at 1 % false positives"),
        rows=(
            ("this run, from its Parquet", f"{auc:.3f}", f"{recall:.3f}"),
            *published,
        ),
        remarks=tuple(remarks),
        draw=lambda axes: _draw(axes, counts, auc),
    )


def _draw(axes: Any, counts: metrics.Tally, auc: float) -> None:
    """The precision-recall curve, and the point with 1 % false positives on it."""
    curve = metrics.precision_recall_curve(counts)
    average = float(metrics.average_precision(counts))
    recalls = np.concatenate([[0.0], curve.recall])
    precisions = np.concatenate([curve.precision[:1], curve.precision])
    axes.step(recalls, precisions, where="post", color="#2563eb", linewidth=2)
    axes.fill_between(recalls, precisions, step="post", color="#2563eb", alpha=0.08)
    threshold = metrics.threshold_at(counts, FALSE_POSITIVE_RATE)
    precision, recall, _ = metrics.rates_at(counts, threshold)
    axes.plot(recall, precision, "o", color="#dc2626", markersize=8, zorder=3)
    axes.annotate(
        f"with 1 % false positives\n{recall * 100:.0f} % of frauds are caught",
        (recall, precision),
        (-14, 22),
        textcoords="offset points",
        ha="right",
        color="#dc2626",
        arrowprops={"arrowstyle": "-", "color": "#dc2626"},
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="recall", ylabel="precision")
    axes.set_title(f"Frauds found: average precision {average:.2f}, ROC AUC {auc:.3f}")
