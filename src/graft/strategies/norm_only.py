"""Only the normalisation layers train (Frankle et al., ICLR 2021, for BatchNorm)."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from graft.backbones.base import Backbone
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, stage_names


class NormOnly(Strategy):
    """The head and every norm's scale and shift train; BatchNorm's statistics follow the target.

    `train_head=False` keeps a pretrained head as it is, for a target with the source's classes.
    """

    freezes = True

    def __init__(self, train_head: bool = True, train_bn: bool | None = None) -> None:
        super().__init__(train_bn)
        self.train_head = train_head

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with all norm parameters; GraftError where the backbone has none."""
        names = [
            f"{name}.{parameter}"
            for name, module in backbone.named_modules()
            if is_norm(module)
            for parameter, _ in module.named_parameters(recurse=False)
        ]
        if not names:
            raise GraftError(f"strategy=norm_only: {backbone.name} has no norm layers. Use strategy=bitfit or lora.")
        return [self.phase(epochs, backbone, stage_names(backbone), names, heads=self.train_head)]


def is_norm(module: nn.Module) -> bool:
    """torch's norms and those of libraries, which derive from them or say it in their name (timm's RmsNorm)."""
    return isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm) or "norm" in type(module).__name__.lower()
