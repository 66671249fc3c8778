"""The linear probe: what `strategy=probe` reads on validation, the yardstick of the others."""

import numpy as np
import torch

from graft.probe.solver import Loss, solve
from graft.strategies.probe import PENALTIES
from graft.transferability.base import Evidence, HeldOut, Kind, held_out_score

LOSSES: dict[Kind, Loss] = {"classes": "softmax", "labels": "sigmoid", "numbers": "squares"}


class LinearProbe(HeldOut):
    """Logistic or ridge regression to convergence; of several penalties the one that validation prefers."""

    name, title = "linear_probe", "linear probe"
    paper = "as a proxy: Renggli et al., Which Model to Transfer? Finding the Needle in the Growing Haystack, CVPR 2022"
    means = "validation score of a linear head on the frozen features, to convergence, at its best penalty"
    not_for = "saying how frozen features do, it says that already; its penalty is chosen on the samples that score it"

    def predictions(self, evidence: Evidence) -> np.ndarray:
        """Of the validation samples, at the penalty that is best there; of equal ones the strongest."""
        x, y = torch.from_numpy(evidence.features), torch.from_numpy(evidence.columns)
        found = solve(x, y, PENALTIES, LOSSES[evidence.kind])
        logits = found.logits(torch.from_numpy(evidence.val_features)).numpy()
        if evidence.kind == "numbers":
            candidates = logits[..., 0] * (evidence.labels.std() or 1.0) + evidence.labels.mean()
        else:
            candidates = logits.argmax(-1) if evidence.kind == "classes" else logits > 0
        scores = [held_out_score(one, evidence.val_labels, evidence.kind) for one in candidates]
        return candidates[int(np.argmax(scores))]
