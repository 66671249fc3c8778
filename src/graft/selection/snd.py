"""The checkpoint whose target predictions have the densest neighbourhoods."""

import torch
import torch.nn.functional as F

from graft.config.types import Positive
from graft.errors import GraftError
from graft.selection.base import ClassPredictions
from graft.selection.candidate import Candidate


class SND(ClassPredictions):
    """Soft neighbourhood density: the highest mean entropy over each sample's neighbours (Saito et al., ICCV 2021).

    Neighbours are weighed by the softmax at a temperature over cosine similarities of predicted probabilities.
    """

    name = "snd"

    def __init__(self, temperature: Positive = 0.05) -> None:
        if temperature <= 0:
            raise GraftError(f"selection.temperature={temperature} is out of range: it must be above 0.")
        self.temperature = temperature

    def score(self, candidate: Candidate) -> float:
        """Of the target's validation rows, no sample being its own neighbour."""
        directions = F.normalize(candidate.rows("target").probabilities, dim=1)
        similarities = directions @ directions.T / self.temperature
        similarities.fill_diagonal_(-torch.inf)
        return float(torch.special.entr(similarities.softmax(dim=1)).sum(dim=1).mean())
