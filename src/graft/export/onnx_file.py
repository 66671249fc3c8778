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

KEY = "graft"  # of the metadata, whose value is JSON
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


def session(file: Path, threads: int) -> Any:
    """A file opened on the CPU, with threads of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


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


def metadata_of(session: Any) -> dict[str, Any]:
    """What `add_metadata` put into an opened file; empty for a file of another origin."""
    return json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
