"""ONNX: one file with weights, names of inputs and output, and metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.errors import GraftError, first_line
from graft.export.deployed import Deployed
from graft.export.quiet import quiet
from graft.export.samples import Batch
from graft.export.session import KEY, session

LARGEST = 2**31  # bytes of a file of protocol buffers


def write(program: torch.export.ExportedProgram, deployed: Deployed, file: Path) -> None:
    """Write a traced network. Raises GraftError for one with an operation that ONNX lacks, or that is too large."""
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size >= LARGEST:
        raise GraftError(f"{deployed.backbone.name}: {size / 2**30:.1f} GiB of weights do not fit into one ONNX file.")
    try:
        with quiet():
            converted = torch.onnx.export(
                program,
                input_names=[one.name for one in deployed.inputs],
                output_names=[deployed.output],
                external_data=False,
                dynamo=True,
                verbose=False,
            )
            assert converted is not None
            converted.save(file, external_data=False)
    except (RuntimeError, ValueError, NotImplementedError, torch.onnx.errors.OnnxExporterError) as error:
        raise GraftError(
            f"{deployed.backbone.name}: torch.onnx cannot convert this network ({first_line(error)}). "
            "Take another format: format=torch_export"
        ) from error


def run(file: Path, batches: Sequence[Batch], threads: int = 1) -> list[np.ndarray]:
    """What onnxruntime answers on the CPU to each batch."""
    found = session(file, threads)
    return [found.run(None, batch.raw)[0] for batch in batches]


def add_metadata(file: Path, metadata: Mapping[str, Any]) -> None:
    """Put metadata into a file, and the names of the dimensions that may have any size."""
    import onnx

    content = onnx.load(file)
    shapes = {one["name"]: one["shape"] for one in metadata["inputs"]}
    names = {
        size.dim_param: name
        for one in content.graph.input
        for size, name in zip(one.type.tensor_type.shape.dim, shapes[one.name], strict=True)
        if isinstance(name, str)
    }
    for one in (*content.graph.input, *content.graph.output, *content.graph.value_info):
        for size in one.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
    onnx.helper.set_model_props(content, {KEY: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(content, file)
