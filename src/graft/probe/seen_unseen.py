"""Generalised zero-shot learning: classes that were seen in training and classes that were not, told apart together.

Accuracies are means over classes (Xian et al., TPAMI 2018). Calibrated stacking takes a constant from the scores of
seen classes, and the area under the curve over all constants needs none (Chao et al., ECCV 2016).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.experiment import Experiment
from graft.heads.class_names import ClassNamesHead
from graft.probe.fit import features_of
from graft.training.fitting import Fitting

PREFIX = "test/zero_shot/"  # of metrics


@dataclass(frozen=True)
class Margins:
    """Of samples, how far the best seen class is above the best unseen one `(N,)`, and what each decision would give.

    `weights` `(N,)` make the sum over the right samples of a kind the mean over its classes' accuracies.
    """

    margin: Tensor
    right: Tensor  # (N,) of a sample's own kind: whether its class is the best of that kind
    of_seen: Tensor  # (N,) whether its class is a seen one
    weights: Tensor

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor, seen: Tensor) -> "Margins":
        """From scores `(N, K)` and labels `(N,)` among all K classes, of which `seen` `(K,)` were there in training."""
        best_seen, place_seen = scores.masked_fill(~seen, -torch.inf).max(dim=1)
        best_unseen, place_unseen = scores.masked_fill(seen, -torch.inf).max(dim=1)
        of_seen = seen[labels]
        right = torch.where(of_seen, place_seen, place_unseen) == labels
        sizes = labels.bincount(minlength=len(seen)).double()
        classes = torch.stack([((sizes > 0) & ~seen).sum(), ((sizes > 0) & seen).sum()])
        weights = 1 / (sizes[labels] * classes[of_seen.long()])
        return cls(best_seen - best_unseen, right, of_seen, weights)

    def accuracies(self, constant: float) -> tuple[float, float]:
        """Of seen and of unseen classes where a constant is taken from the scores of seen ones."""
        as_seen = self.margin >= constant
        right = self.right & (as_seen == self.of_seen)
        return float(self.weights[right & self.of_seen].sum()), float(self.weights[right & ~self.of_seen].sum())

    def constants(self) -> Tensor:
        """One for each pair of accuracies that there can be, rising."""
        values = self.margin.unique()
        return torch.cat([values, values[-1:] + 1])

    def best_constant(self) -> float:
        """The constant with the highest harmonic mean, of equal ones the smallest in size."""
        constants = self.constants().tolist()
        return max([0.0, *constants], key=lambda one: (harmonic_mean(*self.accuracies(one)), -abs(one)))

    def area(self) -> float:
        """Area under the accuracies of unseen classes over those of seen ones."""
        points = torch.tensor([self.accuracies(one) for one in self.constants().tolist()], dtype=torch.float64).flip(0)
        ends = torch.tensor([[0.0, float(points[0, 1])]], dtype=torch.float64)
        points = torch.cat([ends, points])
        return float(torch.trapezoid(points[:, 1], points[:, 0]))


def harmonic_mean(seen: float, unseen: float) -> float:
    """Of two accuracies; 0 where one is."""
    return 2 * seen * unseen / (seen + unseen) if seen and unseen else 0.0


def seen_and_unseen(experiment: Experiment, fitting: Fitting) -> dict[str, Any] | None:
    """For `results.json`: the source's test classes and the target's among the names of both; None where it is no case.

    The constant comes from both validation splits, whose target's labels are counted as its own.
    """
    module, data = experiment.module, experiment.data
    if not {"source", "target"} <= {*module.heads} or "source" not in data.test_domains:
        return None
    heads = heads_of(experiment)
    if not module.strategy.trains_nothing or len(heads) < 2:
        return None
    known = [head.texts for head in heads.values()]
    classes = list(dict.fromkeys(texts for texts in (*known[0], *known[1])))
    seen = torch.tensor([texts in known[0] for texts in classes])
    if bool(seen.all()):
        return None
    splits = {split: margins_of(experiment, fitting, split, classes, seen) for split in ("val", "test")}
    constant, test = splits["val"].best_constant(), splits["test"]
    found = {
        "classes": {"seen": int(seen.sum()), "unseen": int((~seen).sum())},
        "samples": {"seen": int(test.of_seen.sum()), "unseen": int((~test.of_seen).sum())},
        "plain": named(test, 0.0),
        "calibrated": named(test, constant) | {"constant": constant, "labels": len(data.domains["target"].val)},
        "area": test.area(),
    }
    return found


def heads_of(experiment: Experiment) -> dict[str, ClassNamesHead]:
    """Those of both sides that know classes by their names."""
    heads = {domain: experiment.module.head(domain) for domain in ("source", "target")}
    return {domain: head for domain, head in heads.items() if isinstance(head, ClassNamesHead)}


def named(margins: Margins, constant: float) -> dict[str, float]:
    """Accuracies and their harmonic mean."""
    seen, unseen = margins.accuracies(constant)
    return {"seen": seen, "unseen": unseen, "harmonic_mean": harmonic_mean(seen, unseen)}


@torch.no_grad()
def margins_of(
    experiment: Experiment, fitting: Fitting, split: str, classes: Sequence[tuple[str, ...]], seen: Tensor
) -> Margins:
    """Cosines of both sides' samples of a split with the names of all classes, and what follows."""
    scores, labels = [], []
    heads = {domain: copy.deepcopy(head).cpu().double().eval() for domain, head in heads_of(experiment).items()}
    rows = {texts: row for head in heads.values() for texts, row in zip(head.texts, head.vectors(), strict=True)}
    names = F.normalize(torch.stack([rows[texts] for texts in classes]), dim=1)
    for domain, head in heads.items():
        features = features_of(experiment, fitting, domain, split).double()
        own = getattr(experiment.data.domains[domain], split).labels
        scores.append(head.embed(features) @ names.T)
        labels.append(torch.tensor([classes.index(texts) for texts in head.texts])[own.long()])
    return Margins.of(torch.cat(scores), torch.cat(labels), seen)


def metrics_of(found: dict[str, Any]) -> dict[str, float]:
    """Its numbers under the names of metrics."""
    metrics = {PREFIX + name: value for name, value in found["plain"].items()}
    return metrics | {
        PREFIX + "calibrated_harmonic_mean": found["calibrated"]["harmonic_mean"],
        PREFIX + "area": found["area"],
    }
