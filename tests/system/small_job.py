"""A job that is small enough to make anew for each test: its folder holds model and config."""

from pathlib import Path

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper

from pipeline.cli import main
from pipeline.config import Config
from pipeline.settings import load


def model(path: Path) -> Path:
    """Write an ONNX model of three features that gives their sum."""
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])]
    outputs = [helper.make_tensor_value_info("total", TensorProto.FLOAT, ["n", 1])]
    ones = numpy_helper.from_array(np.ones((3, 1), np.float32), "ones")
    node = helper.make_node("MatMul", ["features", "ones"], ["total"])
    graph = helper.make_graph([node], "sum", inputs, outputs, [ones])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def make(folder: Path, job: str, bootstrap: str, **settings) -> Path:
    """Have `headrace init` write the job, and add to its config; returns the config's path."""
    path = model(folder / "sum.onnx")
    assert main(["init", str(path), "--job", job, "--directory", str(folder)]) == 0
    config = folder / "configs" / f"{job}.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content |= {
        "model": str(folder / "models" / job),
        "kafka": {"bootstrap.servers": bootstrap},
        "output": {"parquet": str(folder / "out")},
        "metrics": {"port": None},
    }
    content |= settings
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return config


def read(config: Path) -> Config:
    """Give the config as a run sees it."""
    return load(config, {})
