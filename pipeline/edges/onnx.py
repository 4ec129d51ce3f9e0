"""ONNX Runtime: opens a model, says its signature, runs it on one thread."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import Signature, Tensor

# Between layers a batch stands in the processor's cache up to about this many rows; beyond it each
# costs up to a half more, and the arena grows with the batch.
RUN_ROWS = 2048
GPU_RUN_ROWS = 65_536
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# ONNX Runtime's errors have no root of their own.
_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)


class OnnxModel:
    """One ONNX Runtime session; only `outputs` are computed (all where it is None).

    With `gpu` it runs on CUDA, batches whole: what is sliced for a processor's cache is too little
    for a GPU.

    `file` is what mistakes name. Raises ConfigInvalid where the model can't be opened, lacks an
    output or runs on another provider than was asked for.
    """

    def __init__(
        self,
        model: bytes,
        outputs: Sequence[str] | None = None,
        file: str = "model.onnx",
        *,
        gpu: bool = False,
    ) -> None:
        wanted = CUDA if gpu else CPU
        # Asked for a provider that it lacks, the runtime warns and takes another.
        _refuse_other(file, wanted, onnxruntime.get_available_providers())
        if gpu:
            # The extra brings CUDA and cuDNN as packages, where the system's loader does not look.
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        # Replicas scale by processes: threads of one session that spin would take their cores.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model, options, providers=[wanted])
        except _FAILURES as failure:
            problem = " ".join(f"can't be opened: {failure}".split())
            way_out = "Export it again for ONNX Runtime " + onnxruntime.__version__
            raise ConfigInvalid([Mistake(file, None, problem, way_out)]) from failure
        # It falls back without an error too, as where a driver does not fit.
        _refuse_other(file, wanted, session.get_providers()[:1])
        self._rows = GPU_RUN_ROWS if gpu else RUN_ROWS
        self.signature = Signature(
            inputs={one.name: _tensor(one.type, one.shape) for one in session.get_inputs()},
            outputs={one.name: _tensor(one.type, one.shape) for one in session.get_outputs()},
        )
        self._names = list(self.signature.outputs) if outputs is None else list(outputs)
        unknown = [name for name in self._names if name not in self.signature.outputs]
        if unknown:
            way_out = f"The model's outputs are {', '.join(self.signature.outputs)}"
            raise ConfigInvalid([Mistake(file, unknown, "has no such output", way_out)])
        # Bound inputs and outputs were 6 to 50 us slower in each run on an H200.
        self._run = session.run

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Outputs by name: arrays `[batch, ...]`, or a list of dicts for a sequence of maps.

        Raises what ONNX Runtime raises, which fails the whole batch for one bad value.
        """
        rows = max((len(values) for values in feeds.values()), default=0)
        parts = [
            self._run(
                self._names, {name: feed[row : row + self._rows] for name, feed in feeds.items()}
            )
            for row in range(0, max(rows, 1), self._rows)
        ]
        return {
            name: _joined(pieces)
            for name, pieces in zip(self._names, zip(*parts, strict=True), strict=True)
        }


def _refuse_other(file: str, wanted: str, found: Sequence[str]) -> None:
    """Raise ConfigInvalid where the wanted provider is not there: the CPU is no silent stand-in."""
    if wanted not in found:
        way_out = (
            "Install the extra gpu in place of onnxruntime, with a driver that fits, on the nodes "
            "that have GPUs; or leave replicas.gpu out"
        )
        mistake = Mistake(file, list(found), f"would run elsewhere than on {wanted}", way_out)
        raise ConfigInvalid([mistake])


def _joined(pieces: Sequence[Any]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], list):
        return [value for piece in pieces for value in piece]
    return np.concatenate(pieces)


def _tensor(text: str, shape: Sequence[object]) -> Tensor:
    match = re.fullmatch(r"tensor\((\w+)\)", text)
    if match is None:
        # The runtime writes seq(map(int64,tensor(float))).
        inner = re.fullmatch(r"seq\(map\((\w+),\s*tensor\((\w+)\)\)\)", text)
        kind = f"sequence(map({inner[1]},{inner[2]}))" if inner else text
        return Tensor(kind, ())
    # A named axis comes as its name, an unknown one as None: both are free.
    axes = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in shape)
    return Tensor(match[1], axes)
