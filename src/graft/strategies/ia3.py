"""(IA)^3: learned scales on activations (Liu et al., NeurIPS 2022)."""

from collections.abc import Sequence

from torch import nn

from graft.strategies.peft import AUTO, PeftStrategy, exactly, has_attention, in_attention


class IA3(PeftStrategy):
    """Trains one scale, 1 at first, for each output of the layers it adapts.

    The second layer of a transformer's MLPs has its inputs scaled instead, as in the paper; `auto` takes it beside
    the attention projections.
    """

    def __init__(self, target_modules: str | Sequence[str] = AUTO, train_bn: bool | None = None) -> None:
        super().__init__("ia3", None, target_modules, train_bn)

    def automatic(self, network: nn.Module, layers: Sequence[str]) -> list[str]:
        """The layers that every tuner adapts, and the second layers of a transformer's MLPs."""
        chosen = {*super().automatic(network, layers), *second_mlp_layers(network, layers)}
        return [name for name in layers if name in chosen]

    def inject(self, network: nn.Module, targets: Sequence[str]) -> None:
        """Tell peft which of the layers have their inputs scaled."""
        self.options["feedforward_modules"] = exactly(second_mlp_layers(network, targets))
        super().inject(network, targets)


def second_mlp_layers(network: nn.Module, layers: Sequence[str]) -> list[str]:
    """Of these layers, those outside of attention that bring a transformer's tokens back to fewer features."""
    if not has_attention(network):
        return []
    return [
        name
        for name in layers
        if isinstance(layer := network.get_submodule(name), nn.Linear)
        and layer.in_features > layer.out_features
        and not in_attention(network, name)
    ]
