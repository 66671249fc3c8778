"""torch.export: a .pt2 file that torch runs without Graft."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.export.quiet import quiet
from graft.export.samples import Batch

METADATA = "graft.json"  # of the files that a .pt2 carries


def write(program: torch.export.ExportedProgram, file: Path, metadata: Mapping[str, Any]) -> None:
    """Save a traced network."""
    with quiet(), file.open("wb") as opened:  # a file object: torch insists on the ending of a path
        torch.export.save(program, opened, extra_files={METADATA: json.dumps(metadata, ensure_ascii=False)})


def read(file: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A saved network and its metadata."""
    files = {METADATA: ""}
    with quiet(), file.open("rb") as opened:
        program = torch.export.load(opened, extra_files=files)
    return program.module(), json.loads(files[METADATA] or "{}")


@torch.inference_mode()
def run(file: Path, batches: Sequence[Batch]) -> list[np.ndarray]:
    """What the reloaded network answers to each batch."""
    network, _ = read(file)
    return [network(*map(torch.from_numpy, batch.raw.values())).numpy() for batch in batches]
