"""Any timm model by name, with a tag for the weights (`resnet50.a1_in1k`) or without."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from timm.models import group_parameters
from torch import Tensor, nn

from graft.backbones.base import ImageBackbone, linear_from, refuse_size, refuse_unknown
from graft.backbones.layers import keep_layers, list_of_layers
from graft.backbones.stages import output_shape, stages_from_groups
from graft.config.types import Auto, Count, Natural
from graft.errors import GraftError
from graft.weights.loading import not_downloaded, read_tensors


class TimmBackbone(ImageBackbone):
    """A timm model without its head, pooled as timm does: the map's average, a class token, or its own pooling."""

    counts_blocks = True

    def __init__(
        self,
        name: str,
        size: Count | None = None,
        channels: Auto | Count = 3,
        layer: Auto | Natural | None = None,
    ) -> None:
        """`layer` is the block whose output is normalised and pooled; None: the last."""
        assert isinstance(channels, int)  # `auto` is the data's
        architecture, _, tag = name.partition(".")
        if not timm.is_model(architecture):
            refuse_unknown("timm", name, timm.list_models())
        if tag and name not in timm.list_pretrained(f"{architecture}.*"):
            refuse_unknown("timm", name, timm.list_pretrained(f"{architecture}.*"))
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None  # every model that timm lists has one
        own_size = cfg.input_size[-1]
        options: dict[str, Any] = {"img_size": size} if size and cfg.fixed_input_size else {}
        try:
            network = timm.create_model(name, num_classes=0, in_chans=channels, **options)
            shape = output_shape(network, channels, size or own_size)
        except (AssertionError, RuntimeError, ValueError) as error:
            refuse_size(name, size or own_size, own_size, error)
        layers = list_of_layers(network)
        left_out = keep_layers(network, layers, layer, name)
        super().__init__(
            name,
            network,
            size=size or own_size,
            channels=channels,
            feature_size=shape[1],
            stages=stages_from_groups(network, parameter_groups(network)),
            input_layers=_names(cfg.first_conv),
        )
        self.layers, self.left_out = layers, left_out
        self.cfg = cfg
        self.pretrained_mean, self.pretrained_std = tuple(cfg.mean), tuple(cfg.std)

    def imagenet(self) -> tuple[str, dict[str, Tensor]]:
        """The weights of the name's tag, from torch's or Hugging Face's cache, or downloaded into torch's.

        A plain download, as the hub client repeats its attempts for most of a minute on a machine without network.
        """
        cfg = self.cfg
        name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else str(cfg.architecture)
        if cfg.hf_hub_id:
            hub_file = cfg.hf_hub_filename or "model.safetensors"
            url = hf_hub_url(cfg.hf_hub_id, hub_file)
            cached = try_to_load_from_cache(cfg.hf_hub_id, hub_file)
            if isinstance(cached, str):
                return f"{name} ({cached})", read_tensors(Path(cached))
        elif cfg.url and isinstance(cfg.url, str):
            url = cfg.url
        else:
            return super().imagenet()
        file = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}{Path(urlparse(url).path).suffix}"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(file), progress=False)
            except (OSError, RuntimeError) as error:
                raise GraftError(not_downloaded(name, file, url, error)) from error
        return f"{name} ({file})", read_tensors(file)

    def block_depths(self) -> dict[str, int]:
        """By the grouping of timm's own layer decay, in which the classifier is the last block or a part of it."""
        group_matcher: Any = getattr(self.network, "group_matcher", None)
        if group_matcher is None:
            raise GraftError(
                f"rates.unit=block with backbone.name={self.name}: timm does not say what its blocks are. "
                "Use rates.unit=stage."
            )
        classifier = [(f"{name}.weight", None) for name in _names(self.cfg.classifier) or ("classifier",)]
        named = list(self.network.named_parameters())
        whole: Any = SimpleNamespace(named_parameters=lambda: [*named, *classifier])  # all that timm asks of a model
        block: Any = group_parameters(whole, group_matcher(coarse=False), reverse=True)
        last = max(block.values())
        return {f"network.{name}": last - block[name] for name, _ in named}

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Older names and other image sizes, by the conversion that timm has for this family."""
        family = sys.modules[type(self.network).__module__]
        conversion = getattr(family, "checkpoint_filter_fn", None)
        if conversion is None:
            return tensors
        return dict(conversion(dict(tensors), self.network))

    def build_pretrained_head(self, tensors: dict[str, Tensor]) -> tuple[nn.Module | None, set[str]]:
        """The linear head of a file where it takes these features."""
        names = _names(self.cfg.classifier)
        if len(names) != 1 or f"{names[0]}.weight" not in tensors:
            return None, set()
        weight, bias = tensors[f"{names[0]}.weight"], tensors.get(f"{names[0]}.bias")
        if weight.ndim not in (2, 4) or weight.flatten(1).shape[1] != self.feature_size:
            return None, set()
        return linear_from(weight, bias), {f"{names[0]}.{kind}" for kind in ("weight", "bias")} & tensors.keys()


def parameter_groups(network: nn.Module) -> list[list[str]]:
    """Parameter names from input to output, grouped as timm says; where it does not, by the network's own parts."""
    group_matcher: Any = getattr(network, "group_matcher", None)
    if group_matcher is not None:
        try:
            matcher = group_matcher(coarse=True)
        except AssertionError:  # a few families have fine groups only
            matcher = group_matcher(coarse=False)
        groups = group_parameters(network, matcher)
        return [groups[key] for key in sorted(groups)]
    tokens = [name for name, _ in network.named_parameters(recurse=False)]  # they go with the first part
    parts: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        part, _, rest = name.partition(".")
        if name in tokens:
            continue
        if isinstance(getattr(network, part), (nn.Sequential, nn.ModuleList)):
            part = f"{part}.{rest.partition('.')[0]}"
        parts.setdefault(part, []).append(name)
    first, *others = parts.values()
    return [tokens + first, *others]


def _names(names: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
