"""Tip-Adapter without training: the labelled samples' features are the head, and two numbers are chosen."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from annotated_types import MinLen

from graft.config.types import NonNegative, Positive
from graft.strategies.frozen import Frozen

ALPHAS = (0.1, 0.3, 1.0, 2.0, 3.0, 5.0)
BETAS = (0.5, 1.0, 2.0, 4.0, 5.5, 7.0)


class TipAdapter(Frozen):
    """The cache of `head=tip_adapter` stays as it was filled; the rule's metric chooses `alpha` and `beta`."""

    needs_pretrained = True
    closed_fit = True
    fills_cache = True

    def __init__(
        self,
        alphas: Annotated[Sequence[NonNegative], MinLen(1)] = ALPHAS,
        betas: Annotated[Sequence[Positive], MinLen(1)] = BETAS,
    ) -> None:
        super().__init__(train_bn=None)
        self.alphas = [*map(float, alphas)]
        self.betas = [*map(float, betas)]

    def settings(self, samples: int, image_side: Callable[[], int | None]) -> dict[str, Any]:
        """One pass over the samples as they are."""
        return {"training.epochs": 1, "data.augment": "none"}
