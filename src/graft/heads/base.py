"""What the run reads of `head` and gives to every head."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

from torch import nn

from graft import registry
from graft.build import build
from graft.config.types import Given


@dataclass(frozen=True)
class HeadContext:
    """What a head may know of the network and the data that it is made for."""

    feature_size: int
    num_outputs: int
    class_names: tuple[str, ...] | None = None  # None where the task predicts numbers


class HeadSettings(TypedDict):
    """What the run reads of `head`, and gives to its constructor, beside the constructor's own arguments."""

    sharing: Literal["auto", "shared", "separate"]
    feature_size: Given
    num_outputs: Given
    context: Given


def new_head(settings: Mapping[str, Any], context: HeadContext) -> nn.Module:
    """A head from its own keys; it gets `feature_size` and `num_outputs`, or the `context` that its constructor names.

    Raises GraftError for keys that it does not take.
    """
    takes = inspect.signature(registry.resolve(settings[registry.TARGET])).parameters
    sizes = {name: value for name, value in asdict(context).items() if name != "class_names"}
    if "context" not in takes:
        return build(settings, **sizes)
    return build(settings, **{name: value for name, value in sizes.items() if name in takes}, context=context)
