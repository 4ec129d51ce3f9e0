"""The model folders that the tasks write, and their models opened again."""

import hashlib
from pathlib import Path
from typing import Any


def write_version(folder: Path, name: str, content: bytes, text: str) -> Path:
    """Write version 1 of a model into `folder/name`, which is returned.

    `text` follows the model's sha256 in model.yaml.
    """
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (version / "model.yaml").write_text(f"sha256: {digest}\n{text}")
    return version.parent


def reference_session(model: Path) -> Any:
    """The model of a folder, as ONNX Runtime runs it on a processor by default."""
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(model / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
