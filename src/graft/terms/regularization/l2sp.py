"""L2-SP: weight decay towards the pretrained weights instead of 0 (Li, Grandvalet and Davoine, ICML 2018)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.config.types import NonNegative
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least, check_pretrained


def l2_sp_penalty(backbone: Iterable[tuple[Tensor, Tensor]], head: Iterable[Tensor], head_ratio: float = 1.0) -> Tensor:
    """`1/2 ||w - w0||^2 + head_ratio/2 ||w_head||^2`, a scalar; `backbone` holds pairs of w and w0."""
    nothing = torch.zeros(())
    moved = sum((F.mse_loss(w, w0, reduction="sum") for w, w0 in backbone), nothing)
    size = sum((w.square().sum() for w in head), nothing)
    return (moved + head_ratio * size) / 2


class L2SP(Term):
    """Keeps the backbone's weights near their pretrained values, and the new head's near 0.

    `weight` is the paper's alpha and `head_ratio` its beta over alpha. The paper has no other weight decay beside it.
    Frozen parameters and those that the strategy added, which have no pretrained value, do not count.
    """

    federates = True
    needs_pretrained = True
    needs_inputs = False

    def __init__(self, weight: NonNegative = 0.01, head_ratio: NonNegative = 1.0) -> None:
        super().__init__()
        check_at_least("l2sp.weight", weight, 0)
        check_at_least("l2sp.head_ratio", head_ratio, 0)
        self.weight = weight
        self.head_ratio = head_ratio

    def prepare(self, context: TermContext) -> None:
        """Keep the pretrained values; a resumed run recreates them, so they are in no checkpoint."""
        check_pretrained(context, "l2sp")
        named = context.backbone.named_parameters()
        # In lists, where they are not parameters of this module
        self._backbone: list[nn.Parameter] = [p for name, p in named if name not in context.added_parameters]
        self._head: list[nn.Parameter] = list(context.target_head.parameters())
        for number, parameter in enumerate(self._backbone):
            self.register_buffer(f"pretrained_{number}", parameter.detach().clone(), persistent=False)

    def forward(self, step: TrainStep) -> Tensor:
        """The penalty on what trains at this step."""
        pairs = zip(self._backbone, self.buffers(), strict=True)
        backbone = [(w, w0) for w, w0 in pairs if w.requires_grad]
        return l2_sp_penalty(backbone, [w for w in self._head if w.requires_grad], self.head_ratio)
