"""NCE: what the most probable pretrained class leaves open of the label (Tran et al., ICCV 2019)."""

import numpy as np

from graft.transferability.base import Evidence, Measure


class NCE(Measure):
    """Negative conditional entropy of the label, given the pretrained head's choice."""

    name, title, needs_source = "nce", "NCE", True
    paper = "Tran et al., Transferability and Hardness of Supervised Classification Tasks, ICCV 2019"
    means = "how much of the label the pretrained head's one choice of a class already tells"
    not_for = "backbones without a pretrained head; few samples for many pretrained classes, where it rises by chance"

    def value(self, evidence: Evidence) -> float:
        """At most 0, in nats."""
        assert evidence.source is not None
        joint = np.zeros((evidence.num_classes or 0, evidence.source.shape[1]))
        np.add.at(joint, (evidence.labels, evidence.source.argmax(1)), 1 / len(evidence.labels))
        there = joint > 0
        given_class = joint / np.maximum(joint.sum(0), 1e-300)
        return float((joint[there] * np.log(given_class[there])).sum())
