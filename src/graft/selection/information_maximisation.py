"""The checkpoint whose predictions on the target are sure one by one and spread over the classes together."""

from torch.special import entr

from graft.selection.base import ClassPredictions
from graft.selection.candidate import Candidate


class InformationMaximisation(ClassPredictions):
    """The highest entropy of the mean prediction minus mean entropy of the predictions, in nats (Liang et al., 2020).

    It is the mutual information of input and predicted class. Where classes are unbalanced it prefers what is not.
    """

    name = "information_maximisation"

    def score(self, candidate: Candidate) -> float:
        """Of the target's validation rows."""
        probabilities = candidate.rows("target").probabilities
        return float(entr(probabilities.mean(dim=0)).sum() - entr(probabilities).sum(dim=1).mean())
