"""Any torchvision classification model by name."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import Encoder, interpolate_embeddings

from graft.backbones.base import (
    HALF,
    ImageBackbone,
    Stage,
    first_convolution,
    linear_from,
    refuse_size,
    refuse_unknown,
)
from graft.backbones.stages import output_shape, stages_by_resolution
from graft.config.types import Auto, Count
from graft.errors import GraftError
from graft.weights.input_conv import replace_input_convolution
from graft.weights.loading import not_downloaded

HEAD_NAMES = ("classifier", "fc", "head", "heads")
NO_AUXILIARY: dict[str, object] = {"aux_logits": False, "init_weights": True}
OPTIONS = {"googlenet": NO_AUXILIARY, "inception_v3": NO_AUXILIARY}
SIZE_ARGUMENTS = {"vit": "image_size", "maxvit": "input_size"}  # families built for one image size, and how it is given
TRACED: dict[tuple[str, int, int], tuple[int, list[Stage]]] = {}  # by name, size, channels: a sweep's jobs share them


class TorchvisionBackbone(ImageBackbone):
    """A torchvision classification model without its head: the last map's global average, or the class token."""

    def __init__(self, name: str, size: Count | None = None, channels: Auto | Count = 3) -> None:
        assert isinstance(channels, int)  # `auto` is the data's
        known = models.list_models(module=models)
        if name not in known:
            refuse_unknown("torchvision", name, known)
        weights = getattr(models.get_model_weights(name), "DEFAULT", None)
        preset = weights.transforms() if weights else None
        own_size = preset.crop_size[0] if preset else 224
        size = size or own_size
        try:
            network = models.get_model(name, weights=None, **build_options(name, size))
            tail = cut_head(network)
            if channels != 3:
                replace_input_convolution(network, first_convolution(network)[0], channels)
            if (layout := (name, size, channels)) not in TRACED:
                feature_size = output_shape(network, channels, size)[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            refuse_size(name, size, own_size, error)
        if layout not in TRACED:
            trace_size = size if build_options(name, size).keys() & set(SIZE_ARGUMENTS.values()) else own_size
            TRACED[layout] = (
                feature_size,
                stages_by_resolution(network, list(unit_names(network)), channels, trace_size),
            )
        feature_size, stages = TRACED[layout]
        super().__init__(name, network, size=size, channels=channels, feature_size=feature_size, stages=stages)
        self.weights_name = str(weights) if weights else None
        self.weights_url = weights.url if weights else None
        linears = [layer for _, layer in tail if isinstance(layer, nn.Linear)]
        self._tail = tuple(tail) if linears and linears[0].in_features == feature_size else ()
        if preset and "transform_input" not in vars(network):  # those two were trained on inputs in [-1, 1]
            self.pretrained_mean, self.pretrained_std = tuple(preset.mean), tuple(preset.std)
        else:
            self.pretrained_mean, self.pretrained_std = HALF, HALF

    def imagenet(self) -> tuple[str, dict[str, Tensor]]:
        """torchvision's default ImageNet weights, from torch's hub cache or downloaded into it."""
        if self.weights_url is None:
            return super().imagenet()
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        file = folder / Path(urlparse(self.weights_url).path).name
        try:
            tensors = torch.hub.load_state_dict_from_url(
                self.weights_url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise GraftError(not_downloaded(self.name, file, self.weights_url, error)) from error
        return f"{self.weights_name} ({file})", tensors

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Position embeddings of a ViT for this image size."""
        positions = tensors.get("encoder.pos_embedding")
        if positions is None or not isinstance(self.network, models.VisionTransformer):
            return tensors
        resized = interpolate_embeddings(self.size[0], self.network.patch_size, dict(tensors))
        return dict(resized)

    def build_pretrained_head(self, tensors: dict[str, Tensor]) -> tuple[nn.Module | None, set[str]]:
        """The head that was cut off, with a file's weights and number of classes."""
        linears = {name: layer for name, layer in self._tail if isinstance(layer, nn.Linear)}
        if not linears or any(f"{name}.weight" not in tensors for name in linears):
            return None, set()
        layers = [
            linear_from(tensors[f"{name}.weight"], tensors.get(f"{name}.bias")) if name in linears else layer
            for name, layer in self._tail
        ]
        used = {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")} & tensors.keys()
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers), used


def build_options(name: str, size: int) -> dict[str, object]:
    """Arguments of a family's builder: no auxiliary heads, and the image size where the network depends on it."""
    family = name.split("_")[0]
    if family in SIZE_ARGUMENTS:
        return {SIZE_ARGUMENTS[family]: size if family == "vit" else (size, size)}
    return OPTIONS.get(name, {})


def cut_head(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Turn the network into a feature extractor in place; the layers cut off come back by their names.

    Norms before the first linear layer stay. Dropout goes, as heads have their own.
    """
    attribute = next(name for name in HEAD_NAMES if isinstance(getattr(network, name, None), nn.Module))
    head = getattr(network, attribute)
    if isinstance(head, nn.Sequential):
        layers = [(f"{attribute}.{index}", layer) for index, layer in head.named_children()]
    else:
        layers = [(attribute, head)]
    first = next(i for i, (_, layer) in enumerate(layers) if isinstance(layer, (nn.Linear, nn.Conv2d)))
    kept = [layer for _, layer in layers[:first] if not isinstance(layer, nn.Dropout)]
    if isinstance(layers[first][1], nn.Conv2d):  # squeezenet's head works on the map
        kept.append(nn.AdaptiveAvgPool2d(1))
    setattr(network, attribute, nn.Sequential(*kept))
    if isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool2d):
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    if isinstance(getattr(network, "dropout", None), nn.Dropout):
        network.dropout = nn.Identity()
    return layers[first:]


def unit_names(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of layers and blocks: what is left when containers are opened."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList, Encoder)):
            yield from unit_names(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
