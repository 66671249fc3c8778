"""What the run reads of `head` and gives to every head."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from graft import registry
from graft.backbones.base import Backbone
from graft.backbones.maps import maps_of
from graft.backbones.outputs import MapSize, Tokens, features_of, kept_outputs, map_sizes
from graft.build import build
from graft.config.types import Given
from graft.errors import GraftError

SHARED = "shared"  # the name of one head for both domains
BOTTLENECK = "bottleneck"  # the module's name in a head, and what the names of its parts begin with


@dataclass(frozen=True)
class HeadContext:
    """What a head may know of the network and the data that it is made for."""

    feature_size: int
    num_outputs: int
    class_names: tuple[str, ...] | None = None  # None where the task predicts numbers
    local_size: int | None = None  # D of the backbone's tokens; None for a head that takes none
    maps: Mapping[str, MapSize] | None = None  # of the backbone's stages; None for a head that takes none
    new_decoder: Callable[[], nn.Module] | None = None  # what belongs to a backbone that is one half of a network


class HeadSettings(TypedDict):
    """What the run reads of `head`, and gives to its constructor, beside the constructor's own arguments."""

    sharing: Literal["auto", "shared", "separate"]
    weights: str | None
    grow: bool
    feature_size: Given
    num_outputs: Given
    context: Given


def arguments_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `head` that its constructor takes, without those that the run reads."""
    return {key: value for key, value in settings.items() if key not in ("sharing", "weights", "grow")}


def takes_local(head: Any) -> bool:
    """Whether a head, or its class, looks at places: it says `takes = "local"` and gets Tokens, or "maps" and Maps."""
    return getattr(head, "takes", "features") in ("local", "maps")


def takes_maps(head: Any) -> bool:
    """Whether a head, or its class, says `takes = "maps"` and gets Maps of the backbone's stages.

    Where it says `stages` too, it reads those alone, and those alone are kept of a frozen backbone.
    """
    return getattr(head, "takes", "features") == "maps"


def seen_by(head: nn.Module, backbone: Backbone, x: Any, sizes: Tensor | None = None) -> Any:
    """What a head takes of a backbone's inputs `(B, ...)`: features `(B, D)`, or Tokens or Maps with these beside.

    `sizes` `(B, 2)` are those of images without padding, where a batch is padded.
    """
    if takes_maps(head):
        return maps_of(backbone, x, sizes)
    if not takes_local(head):
        return backbone(x)
    with kept_outputs(backbone, [""]) as found:
        seen = backbone.tokens(x)
    return replace(seen, features=found.get(""))


def taken_by(head: nn.Module, seen: Tensor | Tokens) -> Tensor | Tokens:
    """What another head takes of what a run's head sees: tokens, or features."""
    return seen if takes_local(head) else features_of(seen)


def has_bottleneck(head: Any) -> bool:
    """Whether a head, or its class, says `has_bottleneck`: its modules `bottleneck` and `classifier` follow each other.

    What the first puts out `(B, E)` is the embedding that terms align, and it trains where the backbone is frozen.
    """
    return getattr(head, "has_bottleneck", False)


def bottleneck_of(head: nn.Module) -> nn.Module:
    """What makes a head's embedding of what it takes; nothing to do where it has no bottleneck."""
    return head.get_submodule(BOTTLENECK) if has_bottleneck(head) else nn.Identity()


def classifier_of(head: nn.Module) -> nn.Module:
    """What makes predictions of a head's embedding: the head itself where it has no bottleneck."""
    return head.get_submodule("classifier") if has_bottleneck(head) else head


def context_for(
    settings: Mapping[str, Any], backbone: Backbone, num_outputs: int, class_names: tuple[str, ...] | None
) -> HeadContext:
    """What the head of a config may know; GraftError where it takes tokens that the backbone has not."""
    size, maps, head = None, None, registry.resolve(settings[registry.TARGET])
    if takes_local(head):
        training, example = backbone.training, backbone.example_inputs(1)
        with torch.no_grad():
            if takes_maps(head):
                maps = map_sizes(backbone.eval().local(example), example.shape[-1])
                check_takes_any_size(backbone, example)
            else:
                size = backbone.eval().tokens(example).values.shape[-1]
        backbone.train(training)
    return HeadContext(
        backbone.feature_size, num_outputs, class_names, size, maps, getattr(backbone, "new_decoder", None)
    )


def check_takes_any_size(backbone: Backbone, example: Any) -> None:
    """GraftError for a backbone that takes images of its own size `example` `(1, C, H, W)` alone."""
    try:
        backbone(torch.cat([example, example], dim=-1))
    except (RuntimeError, AssertionError, ValueError):
        size = tuple(example.shape[-2:])
        raise GraftError(
            f"backbone {backbone.name} takes images of {size[0]} x {size[1]} pixels alone, but images with boxes keep "
            "their shape. Choose a convolutional backbone (backbone=efficientnet_lite0, mobilenet_v2, resnet18)."
        ) from None


def new_head(settings: Mapping[str, Any], context: HeadContext) -> nn.Module:
    """A head from its own keys; it gets `feature_size` and `num_outputs`, or the `context` that its constructor names.

    Raises GraftError for keys that it does not take.
    """
    takes = inspect.signature(registry.resolve(settings[registry.TARGET])).parameters
    sizes = {"feature_size": context.feature_size, "num_outputs": context.num_outputs}
    if "context" not in takes:
        return build(settings, **sizes)
    return build(settings, **{name: value for name, value in sizes.items() if name in takes}, context=context)
