"""A folder that transformers' AutoModel or timm opens, for backbones that came from there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graft.backbones.huggingface import HuggingFaceBackbone, HuggingFaceTokenizer, imported_transformers
from graft.backbones.timm import TimmBackbone
from graft.errors import GraftError
from graft.export.deployed import Deployed
from graft.export.quiet import quiet
from graft.export.samples import Batch
from graft.files import write_whole
from graft.heads.linear import LinearHead
from graft.inputs.image.geometry import CROP_FRACTION, SMALL
from graft.model.folder import Description

HEAD, METADATA = "head.safetensors", "graft.json"
OTHERWISE = "Take format=onnx, torch_export or safetensors"


def check(deployed: Deployed, description: Description) -> None:
    """Raise GraftError for a network that neither library knows."""
    backbone, head = deployed.backbone, deployed.head
    known = isinstance(backbone, HuggingFaceBackbone) or (
        isinstance(backbone, TimmBackbone) and description.modality == "image"
    )
    if not known:
        raise GraftError(
            f"format=huggingface: {backbone.name} ({type(backbone).__name__}) is a network of neither transformers' "
            f"texts nor timm's images. {OTHERWISE}."
        )
    if description.strategy is not None:
        raise GraftError(
            f"format=huggingface: {description.strategy['name']} added layers to {backbone.name}, which the library's "
            f"own network has no place for. {OTHERWISE}."
        )
    if description.resized:
        raise GraftError(
            f"format=huggingface: {backbone.name} was pruned, and the library builds it whole. {OTHERWISE}."
        )
    if isinstance(backbone, TimmBackbone) and not isinstance(head, LinearHead):
        raise GraftError(
            f"format=huggingface: a timm network ends in a linear layer, and this run's head is "
            f"{type(head).__name__}. {OTHERWISE}."
        )


def write(deployed: Deployed, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Save network, head and what prepares inputs."""
    folder.mkdir()
    with quiet():
        if isinstance(deployed.backbone, TimmBackbone):
            write_timm(deployed.backbone, deployed.head, folder, metadata)
        else:
            write_transformers(deployed, folder)
    write_whole(folder / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False))


def write_transformers(deployed: Deployed, folder: Path) -> None:
    """The encoder and its tokenizer; the head lies beside, because no class of the library pools as Graft does."""
    from safetensors.torch import save_file

    backbone: Any = deployed.backbone
    tokenizer: HuggingFaceTokenizer = backbone.tokenizer
    backbone.network.save_pretrained(folder)
    tokenizer.tokenizer.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in deployed.head.state_dict().items()}, folder / HEAD)


def write_timm(backbone: TimmBackbone, head: nn.Module, folder: Path, metadata: Mapping[str, Any]) -> None:
    """The network with the head as its classifier."""
    import timm
    from timm.models._hub import save_for_hf

    assert isinstance(head, LinearHead)
    size, linear = backbone.size, head.linear
    options: dict[str, Any] = {"img_size": size[0]} if backbone.cfg.fixed_input_size else {}
    network: Any = timm.create_model(
        backbone.name, num_classes=linear.out_features, in_chans=backbone.channels, **options
    )
    missing, unknown = network.load_state_dict(backbone.network.state_dict(), strict=False)
    classifier = network.get_classifier()
    if unknown or len(missing) != 2 or not isinstance(classifier, nn.Linear):
        raise GraftError(
            f"format=huggingface: {backbone.name} has no place in timm for this run's layers "
            f"({', '.join([*unknown, *missing][:3])}). {OTHERWISE}."
        )
    classifier.load_state_dict(linear.state_dict())
    preprocessing = {
        "input_size": [backbone.channels, *size],
        "mean": backbone.input_mean.tolist(),
        "std": backbone.input_std.tolist(),
        "interpolation": "bilinear",
        "crop_pct": 1.0 if max(size) <= SMALL else CROP_FRACTION,
        "crop_mode": "squash" if max(size) <= SMALL else "center",
    }
    config: dict[str, Any] = {"num_classes": linear.out_features, "pretrained_cfg": preprocessing}
    if metadata["classes"]:
        config["label_names"] = [*metadata["classes"]]
    save_for_hf(network, str(folder), model_config=config, model_args=options or None, safe_serialization=True)


@torch.inference_mode()
def run(folder: Path, deployed: Deployed, batches: Sequence[Batch]) -> list[np.ndarray]:
    """What the reopened network answers to each batch."""
    with quiet():
        if isinstance(deployed.backbone, TimmBackbone):
            import timm

            network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            inputs = [deployed.preprocessing(*map(torch.from_numpy, batch.raw.values())) for batch in batches]
            return [deployed.calibrated(network(one)).numpy() for one in inputs]
        from safetensors.torch import load_file

        loaded = imported_transformers().AutoModel.from_pretrained(folder, local_files_only=True).eval()
        deployed.backbone.network = loaded
        deployed.head.load_state_dict(load_file(folder / HEAD))
        return [deployed(*map(torch.from_numpy, batch.raw.values())).numpy() for batch in batches]
