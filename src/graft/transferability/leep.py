"""LEEP: how well the pretrained classes predict the labels (Nguyen et al., ICML 2020)."""

import numpy as np

from graft.transferability.base import Evidence, Measure


class LEEP(Measure):
    """Mean log likelihood of the labels under P(label given pretrained class), weighted by the pretrained head."""

    name, title, needs_source = "leep", "LEEP", True
    paper = "Nguyen et al., LEEP: A New Measure to Evaluate Transferability of Learned Representations, ICML 2020"
    means = "how well the labels can be guessed from the classes that the pretrained head sees in a sample"
    not_for = (
        "backbones without a pretrained head; more pretrained classes raise it by themselves, so do not compare such"
    )

    def value(self, evidence: Evidence) -> float:
        """At most 0."""
        assert evidence.source is not None
        joint = evidence.columns.T @ evidence.source / len(evidence.labels)  # (K, Z)
        given_class = joint / np.maximum(joint.sum(0), 1e-300)
        expected = (given_class[evidence.labels] * evidence.source).sum(1)
        return float(np.log(np.maximum(expected, 1e-300)).mean())
