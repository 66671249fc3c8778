"""The checkpoint whose pseudo-labels teach the way back to the source."""

import numpy as np

from graft.selection.base import ClassPredictions
from graft.selection.candidate import Candidate
from graft.selection.logistic import fitted_probabilities
from graft.selection.source_classes import check_same_classes


class Circular(ClassPredictions):
    """Reverse validation: the highest source accuracy of a head that learned the target's pseudo-labels.

    A new linear head is fitted on the target's validation features with the network's own predictions and scored on the
    source's labelled validation rows (Zhong et al., 2010; Ganin et al., 2016, who train a whole network back).
    """

    name = "circular"
    domains = ("source", "target")
    check = check_same_classes

    def score(self, candidate: Candidate) -> float:
        """The share of the source's validation rows that the reverse head predicts."""
        target, source = candidate.rows("target"), candidate.rows("source")
        assert source.labels is not None
        classes, probabilities = fitted_probabilities(
            target.features.numpy(), target.predicted.numpy(), source.features.numpy()
        )
        return float(np.mean(classes[probabilities.argmax(axis=1)] == source.labels.numpy()))
