"""Features from a layer in the middle: the layers of a network that are all alike, and a network without the last."""

from collections.abc import Sequence

from torch import nn

from graft.config.types import Auto
from graft.errors import GraftError

LISTS = (nn.ModuleList, nn.Sequential)


def list_of_layers(network: nn.Module, number: int | None = None, names: Sequence[str] = ("blocks",)) -> str | None:
    """Name of a transformer's list of layers, which have the same parameters in the same shapes: so many, or by name.

    Of several lists the last, as an encoder of sound lists its convolutions before its layers. None where there is
    none, as where all layers share their weights.
    """
    found = [
        name
        for name, part in network.named_modules()
        if isinstance(part, LISTS) and (name in names if number is None else len(part) == number) and alike(part)
    ]
    return found[-1] if found else None


def alike(parts: nn.ModuleList | nn.Sequential) -> bool:
    """Whether parts are blocks that have the same parameters in the same shapes."""
    shapes = {tuple((name, value.shape) for name, value in part.named_parameters()) for part in parts}
    return len(shapes) == 1 and shapes != {()}


def number_of_layers(network: nn.Module, layers: str | None) -> int:
    """How many there are; 0 for a network without a list of them."""
    return 0 if layers is None else len(network.get_submodule(layers))  # type: ignore[arg-type]


def keep_layers(network: nn.Module, layers: str | None, layer: Auto | int | None, name: str) -> tuple[str, ...]:
    """Take the layers behind the `layer`-th out of a network; what comes after the last stays, such as its norm.

    Returns how the names of parameters begin that are gone. None keeps all, 0 what comes before the first.
    """
    if layer is None:
        return ()
    assert layer != "auto"  # the run has found it by now
    if layers is None:
        raise GraftError(
            f"backbone.layer={layer}: {name} is no stack of layers that are all alike, of which one could be chosen. "
            "Use backbone.layer=null."
        )
    number = number_of_layers(network, layers)
    if layer > number:
        raise GraftError(
            f"backbone.layer={layer}: {name} has {number} layers. Allowed: 0 (before the first) to {number}, null (the "
            "last), auto (chosen on validation)."
        )
    parent, _, attribute = layers.rpartition(".")
    whole = network.get_submodule(layers)
    assert isinstance(whole, LISTS)
    gone = [child for child, _ in whole.named_children()][layer:]
    setattr(network.get_submodule(parent), attribute, whole[:layer])
    return tuple(f"{layers}.{child}." for child in gone)
