"""How good written texts are: ROUGE (Lin, 2004) by torchmetrics, and how well a decoder knows the right ones."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text.rouge import ROUGEScore

from graft.data.target_texts import TargetTexts
from graft.tasks.metrics import ratio

KEYS = ("rouge1", "rouge2", "rougeL")  # rougeLsum splits sentences with nltk, which downloads what it needs


class Rouge(ROUGEScore):
    """`rouge1`, `rouge2`, `rougeL`: F1 of single words, pairs and the longest common subsequence, mean over texts."""

    def __init__(self) -> None:
        super().__init__(rouge_keys=KEYS)

    def update(self, preds: Any, target: Any, scores: Tensor | None = None) -> None:
        """Add written texts and those that were to be written."""
        written: TargetTexts = preds
        super().update(written.tolist(), target.tolist())

    def compute(self) -> dict[str, Tensor]:
        """The three means; NaN where there is no text."""
        found = super().compute()
        return {name: found[f"{name}_fmeasure"] for name in KEYS}


class TokenSums(Metric):
    """What a decoder makes of the right tokens, given those before: log-likelihood, right ones and all of each text."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Any, scores: Tensor | None = None) -> None:
        """Add texts by their sums `(B, 3)`; there are none of texts that no decoder wrote."""
        if scores is not None:
            self.sums += scores.sum(0)


class TokenAccuracy(TokenSums):
    """Share of the right tokens that are the most probable ones."""

    def compute(self) -> Tensor:
        """The share, over the texts of all processes; NaN where there is no token."""
        return ratio(self.sums[1], self.sums[2])


class Perplexity(TokenSums):
    """The exponential of the mean loss of a token."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Over the tokens of all processes; NaN where there is none."""
        return torch.where(self.sums[2] > 0, (-self.sums[0] / self.sums[2]).exp(), math.nan)
