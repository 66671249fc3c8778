"""A head of names beside a cache of the labelled samples' features: Tip-Adapter (Zhang et al., ECCV 2022)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn

from graft.config.types import Auto, NonNegative, Positive
from graft.heads.base import HeadContext
from graft.heads.class_names import NAME, ClassNamesHead, hold
from graft.heads.towers.base import Tower


class TipAdapterHead(ClassNamesHead):
    """Logits of the names, plus `alpha` times a vote of the training samples: each of weight exp(-beta (1 - cosine)).

    The samples' vectors are its only parameters, which begin as the frozen backbone's features; where they train, this
    is Tip-Adapter-F. The names' rows stay as the tower gave them.
    """

    caches = True  # it takes the training samples' features before the fit

    def __init__(
        self,
        context: HeadContext,
        tower: Tower,
        templates: Annotated[Sequence[str], MinLen(1)] = (NAME,),
        names: Mapping[str, str] | None = None,
        scale: Auto | Positive = "auto",
        alpha: NonNegative = 1.0,
        beta: Positive = 5.5,
    ) -> None:
        """`tower` gives vectors in the space of the features; it stays as it is."""
        super().__init__(context, tower, templates, names, "none", scale)
        hold(self)
        self.keys = nn.Parameter(torch.zeros(0, tower.size))
        self.values: Tensor
        self.register_buffer("values", torch.zeros(0, len(self.classes)))
        self.strengths: Tensor
        self.register_buffer("strengths", torch.tensor([alpha, beta]))

    @torch.no_grad()
    def fill(self, features: Tensor, labels: Tensor) -> None:
        """Take features `(N, D)` and labels `(N,)` of the training samples."""
        self.keys = nn.Parameter(F.normalize(features, dim=1).to(self.rows))
        self.values = F.one_hot(labels.long(), len(self.classes)).to(self.rows)

    def set_strengths(self, alpha: float, beta: float) -> None:
        """Set how much the samples count, and how fast that falls with their distance."""
        self.strengths.copy_(torch.tensor([alpha, beta]))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, K)` of features `(B, D)`."""
        alpha, beta = self.strengths.unbind()
        near = self.embed(features) @ F.normalize(self.keys, dim=1).T
        return super().forward(features) + alpha * (-beta * (1 - near)).exp() @ self.values

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Take over a cache of any number of samples."""
        keys, values = (state_dict.get(f"{prefix}{name}") for name in ("keys", "values"))
        if keys is not None and values is not None and len(keys) != len(self.keys):
            self.keys = nn.Parameter(self.keys.new_zeros(keys.shape))
            self.values = self.values.new_zeros(values.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
