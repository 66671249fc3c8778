"""safetensors: weights of backbone and head, and JSON beside them that says what they are the weights of."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.export.deployed import Deployed
from graft.export.samples import Batch
from graft.files import write_whole
from graft.model import folder as folders


def write(deployed: Deployed, file: Path, metadata: Mapping[str, Any]) -> None:
    """Save the weights, each under its name in the run's model."""
    folders.write_weights(folders.network_of(deployed.backbone, deployed.head), file)
    write_whole(file.with_suffix(".json"), json.dumps(metadata, indent=1, ensure_ascii=False))


@torch.inference_mode()
def run(file: Path, deployed: Deployed, batches: Sequence[Batch]) -> list[np.ndarray]:
    """What the network answers once its weights are those of the file."""
    folders.network_of(deployed.backbone, deployed.head).load_state_dict(folders.read_weights(file))
    return [deployed(*map(torch.from_numpy, batch.raw.values())).numpy() for batch in batches]
