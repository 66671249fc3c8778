"""A linear head over the space that samples and names share, whose fit takes the names for further samples."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from graft.config.types import NonNegative
from graft.heads.base import HeadContext
from graft.heads.class_names import LARGEST, NAME, ROWS, ClassNamesHead, hold
from graft.heads.towers.base import Tower

TOWER, LAYER = "tower.", "linear."  # what names in a head's state begin with


class CrossModalHead(ClassNamesHead):
    """Cross-modal adaptation (Lin et al., CVPR 2023): the vector of a class's name is a labelled sample of the probe.

    Only the linear layer learns. Projection, scale and rows stay as they were learned elsewhere, and the tower is no
    part of the head. Until the fit the layer says what the names alone say.
    """

    adds_names = True  # strategy=probe takes its rows for further samples

    def __init__(
        self,
        context: HeadContext,
        tower: Tower,
        templates: Annotated[Sequence[str], MinLen(1)] = (NAME,),
        names: Mapping[str, str] | None = None,
        projection: Literal["linear", "none"] = "linear",
        name_weight: NonNegative = 1.0,
    ) -> None:
        """`name_weight` is that of a name in the loss, where a sample's is 1 on average."""
        super().__init__(context, tower, templates, names, projection)
        self.tower = None
        self.rows = nn.Parameter(torch.zeros(len(self.classes), tower.size))
        hold(self)
        self.name_weight = name_weight
        self.linear = nn.Linear(tower.size, len(self.classes))

    @torch.no_grad()
    def ask_tower(self) -> None:
        """Take rows and scale from the tower, and begin with them; one that learns has learned nothing yet."""
        super().ask_tower()
        self.linear.weight.copy_(self.scale * self.rows)
        self.linear.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, K)` of features `(B, D)`."""
        return self.linear(self.embed(features))

    @torch.no_grad()
    def with_learned(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This head's state with the projection and scale of a head of names, and rows by its tower where that learned.

        Raises RuntimeError where that tower is another one.
        """
        (tower,) = self._fixed
        if tower.learns:
            found = {name: value for name, value in learned.items() if name.startswith(TOWER)}
            tower.load_state_dict({name.removeprefix(TOWER): value for name, value in found.items()})
        rows = self.vectors_by(tower, self.texts) if tower.learns else self.rows
        kept = {name: value for name, value in learned.items() if name != ROWS and not name.startswith((TOWER, LAYER))}
        scale = kept.get("log_scale", self.log_scale).clamp(max=LARGEST).exp()
        return {**kept, ROWS: rows, "linear.weight": scale * rows, "linear.bias": torch.zeros_like(self.linear.bias)}
