"""8-bit weights and activations after training, by onnxruntime."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graft.export.quiet import quiet
from graft.export.samples import Batch

Kind = Literal["static", "dynamic"]
# What a static file computes in 8 bits: layers, and what stands between them, so that values need not become floats.
STATIC = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "GlobalAveragePool", "MaxPool")
# 7 of the 8 bits of weights: without VNNI, sums of two products of 8 bits overflow 16, and a file may go anywhere.
OPTIONS: dict[str, Any] = {"per_channel": True, "reduce_range": True}


def quantise(file: Path, to: Path, kind: Kind, calibration: Sequence[Batch]) -> None:
    """Write a float file with weights in 8 bits; `static` takes the activations' ranges from calibration batches."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(file, prepared, skip_symbolic_shape=True)  # folds BatchNorm into convolutions
        if kind == "dynamic":
            quantization.quantize_dynamic(prepared, to, **OPTIONS)
            return

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.batches: Iterator[Batch] = iter(calibration)

            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(self.batches, None)
                return None if batch is None else batch.raw

        quantization.quantize_static(prepared, to, Reader(), op_types_to_quantize=[*STATIC], **OPTIONS)
