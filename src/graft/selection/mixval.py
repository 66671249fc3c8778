"""The checkpoint whose predictions hold between target samples too."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Interval

from graft.data.samples import generator
from graft.errors import GraftError
from graft.selection.base import ClassPredictions
from graft.selection.candidate import Candidate

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule


class MixVal(ClassPredictions):
    """The highest agreement of predictions for pairwise mixed inputs with the mix of pseudo-labels (Hu et al., 2023).

    As in SKADA-Bench the class of the heavier sample is to be predicted; `pairs` are those of one pseudo-label (intra),
    of two (inter), or the mean of both.
    """

    name = "mixval"

    def __init__(
        self,
        weight: Annotated[float, Interval(gt=0.5, lt=1)] = 0.55,
        pairs: Literal["both", "intra", "inter"] = "both",
    ) -> None:
        if not 0.5 < weight < 1:
            raise GraftError(f"selection.weight={weight} is out of range: it must be above 0.5 and below 1.")
        self.weight = weight
        self.pairs = pairs

    def check(self, data: "TransferDataModule") -> None:
        """GraftError for what is no image."""
        if data.modality != "image":
            raise GraftError(
                f"selection=mixval with {data.modality} data: it mixes inputs, which have to be images. "
                "Use selection=entropy, information_maximisation or snd."
            )

    def score(self, candidate: Candidate) -> float:
        """The share of the target's validation rows that agree, each mixed with another one, the same each time."""
        predicted = candidate.rows("target").predicted
        partners = torch.randperm(len(predicted), generator=generator("mixval", len(predicted)))
        agrees = (candidate.mixed(partners, self.weight).predicted == predicted).double()
        same = predicted == predicted[partners]
        kinds = {"intra": agrees[same], "inter": agrees[~same]}
        wanted = [kinds[kind] for kind in kinds if self.pairs in ("both", kind)]
        shares = [float(kind.mean()) for kind in wanted if len(kind)]
        return sum(shares) / len(shares) if shares else math.nan
