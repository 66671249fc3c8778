"""An exported ONNX file opened by onnxruntime, which needs no torch."""

import json
from pathlib import Path
from typing import Any

KEY = "graft"  # of the file's metadata, whose value is JSON


def session(file: Path, threads: int) -> Any:
    """A file opened on the CPU, with threads of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def metadata_of(opened: Any) -> dict[str, Any]:
    """What the export said of the file; empty for a file of another origin."""
    return json.loads(opened.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
