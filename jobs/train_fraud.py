"""Train the fraud model on card transactions, export it to ONNX and say how good it is.

    python -m jobs.train_fraud transactions.parquet --output models/fraud

The bar for the last 20 % of the transactions, in the order of time, is that of published results
(data/NOTICE.md). Those rows are scored once, by the exported model, and choose nothing: the
members and settings in `jobs.fraud_model` and the threshold come from time-ordered
cross-validation inside the first 80 %.
"""

import argparse
import hashlib
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import yaml

from jobs.fraud_model import (
    FEATURES,
    MEMBERS,
    SEED,
    Labels,
    Matrix,
    Members,
    Numbers,
    export,
    fit,
    member_logits,
    probability,
)
from jobs.metrics import (
    Interval,
    average_precision,
    bootstrap,
    rates_at,
    recall_at,
    roc_auc,
    tally,
    threshold_at,
)

VERSION = "1"  # the program is the version: the same data gives the same model
TRAINING_SHARE = 0.8
# Each fold trains on all rows before its start and is judged on the rows up to the next one.
FOLD_STARTS = (0.40, 0.55, 0.70, 0.85)
FALSE_POSITIVE_RATE = 0.01
PARITY = 1e-5


def read(path: Path) -> pa.Table:
    """Read the transactions in the order of time.

    Raises:
        ValueError: a column is missing, or the rows are not sorted by Time.

    """
    table = pq.read_table(path).replace_schema_metadata()
    missing = [name for name in ("Time", *FEATURES, "Class") if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}: see data/NOTICE.md")
    if (np.diff(table["Time"].to_numpy()) < 0).any():
        raise ValueError(f"{path} is not sorted by Time: sort it, the split goes by its order")
    return table


def matrix(table: pa.Table) -> tuple[Matrix, Labels]:
    """Return the features, float32 [N, 29] in the order of FEATURES, and the class, [N]."""
    columns = [table[name].to_numpy().astype(np.float32) for name in FEATURES]
    return np.stack(columns, axis=1), table["Class"].to_numpy().astype(np.int64)


def score(model: bytes, features: Matrix) -> Numbers:
    """Score with ONNX Runtime on one thread, [N]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run(["probability"], {"features": features[start : start + 4000]})[0]
        for start in range(0, len(features), 4000)
    ]
    return np.concatenate(parts)[:, 0].astype(np.float64)


def check_parity(model: bytes, members: Members, features: Matrix) -> float:
    """Return the largest difference between ONNX Runtime and scikit-learn.

    Raises:
        ValueError: the difference is above PARITY.

    """
    expected = probability(member_logits(members, features))
    difference = float(np.abs(score(model, features) - expected).max())
    if difference > PARITY:
        raise ValueError(
            f"the exported model differs from scikit-learn by {difference:.1e}, more than"
            f" {PARITY}: check that these versions of scikit-learn and ONNX Runtime fit together"
        )
    return difference


def folds(rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows to train on and the rows to judge by: always later ones."""
    bounds = [int(rows * share) for share in (*FOLD_STARTS, 1)]
    for start, stop in pairwise(bounds):
        yield slice(0, start), slice(start, stop)


def cross_validate(features: Matrix, labels: Labels) -> tuple[dict[str, Any], float]:
    """Judge every average of members on later rows than they were trained on.

    Returns a table (per blend, the folds and their mean) and the threshold of the whole blend that
    keeps to FALSE_POSITIVE_RATE on the folds together.
    """
    judged = [
        (labels[later], member_logits(fit(features[earlier], labels[earlier]), features[later]))
        for earlier, later in folds(len(labels))
    ]
    table = {}
    for size in range(1, len(MEMBERS) + 1):
        for chosen in combinations(range(len(MEMBERS)), size):
            counts = [tally(truth, probability(logits[list(chosen)])) for truth, logits in judged]
            table[" + ".join(MEMBERS[index] for index in chosen)] = {
                "roc_auc": _rounded([float(roc_auc(c)) for c in counts]),
                "recall_at_1_percent_false_positives": _rounded(
                    [float(recall_at(c, FALSE_POSITIVE_RATE)) for c in counts]
                ),
                "average_precision": _rounded([float(average_precision(c)) for c in counts]),
            }
    together = tally(
        np.concatenate([truth for truth, _ in judged]),
        np.concatenate([probability(logits) for _, logits in judged]),
    )
    # Rounded up: the rate is kept, and the last bits of a sum over threads do not show.
    threshold = math.ceil(threshold_at(together, FALSE_POSITIVE_RATE) * 1e4) / 1e4
    return table, threshold


def judge(labels: Labels, scores: Numbers, threshold: float) -> dict[str, Any]:
    """Measure on rows that nothing was chosen by, with 95 % bootstrap intervals."""
    counts = tally(labels, scores)
    precision, recall, rate = rates_at(counts, threshold)
    return {
        "rows": len(labels),
        "frauds": int(labels.sum()),
        "roc_auc": _interval(bootstrap(counts, roc_auc)),
        "recall_at_1_percent_false_positives": _interval(
            bootstrap(counts, lambda resampled: recall_at(resampled, FALSE_POSITIVE_RATE))
        ),
        "average_precision": _interval(bootstrap(counts, average_precision)),
        "at_threshold": {
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "false_positive_rate": round(rate, 5),
        },
    }


def main() -> None:
    """Train, export, check and write `{output}/1/model.onnx` and `model.yaml`."""
    arguments = _arguments()
    table = read(arguments.path)
    rows = int(table.num_rows * TRAINING_SHARE)
    features, labels = matrix(table.slice(0, rows))
    later, truth = matrix(table.slice(rows))

    print(f"cross-validating on {rows} transactions, {labels.sum()} of them frauds")
    comparison, threshold = cross_validate(features, labels)
    for name, values in comparison.items():
        print(f"  {name}: {values}")
    began = time.monotonic()
    members = fit(features, labels)
    seconds = time.monotonic() - began
    model = export(members)
    difference = check_parity(model, members, later)
    holdout = judge(truth, score(model, later), threshold)
    print(f"last {len(truth)} transactions: {holdout}")

    folder = arguments.output / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    manifest = {
        "sha256": hashlib.sha256(model).hexdigest(),
        "inputs": {"features": {"fields": FEATURES}},
        "outputs": {"probability": {"column": "score"}},
        "threshold": {"column": "score", "at_least": threshold, "name": "flagged"},
        "metrics": {
            "holdout": holdout,
            "training": {
                "rows": rows,
                "frauds": int(labels.sum()),
                "seconds": round(seconds, 1),
                "seed": SEED,
                "largest_difference_to_scikit_learn": float(f"{difference:.1e}"),
            },
            "cross_validation": {"fold_starts": list(FOLD_STARTS), "blends": comparison},
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None, width=100)
    (folder / "model.yaml").write_text(text)
    print(f"wrote {folder}/model.onnx ({len(model) / 1e6:.2f} MB) and model.yaml")
    if arguments.holdout:
        _write_holdout(table.slice(rows), rows, arguments.holdout)
        print(f"wrote {arguments.holdout}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.train_fraud", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("path", type=Path, help="Parquet: Time, V1..V28, Amount (cents), Class")
    parser.add_argument(
        "--output", type=Path, default=Path("models/fraud"), help="folder of the model's versions"
    )
    parser.add_argument("--holdout", type=Path, help="write the last 20 %% to this Parquet file")
    return parser.parse_args()


def _write_holdout(table: pa.Table, first: int, path: Path) -> None:
    """Write the rows with their numbers in the original file, from `first` on, as `id`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbered = table.add_column(0, "id", pa.array(range(first, first + len(table)), pa.int64()))
    # Floats compress by byte position or not at all: 5.6 MB instead of 9.2.
    floats = [field.name for field in numbered.schema if pa.types.is_floating(field.type)]
    pq.write_table(
        numbered,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        use_byte_stream_split=floats,
    )


def _rounded(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "folds": [round(value, 4) for value in values],
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(interval).items()}


if __name__ == "__main__":
    main()
