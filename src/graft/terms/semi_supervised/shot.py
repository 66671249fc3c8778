"""SHOT: information maximisation with pseudo-labels by the nearest class centre (Liang et al., ICML 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.backbones.outputs import features_of
from graft.config.types import NonNegative
from graft.errors import GraftError
from graft.heads.base import bottleneck_of, classifier_of, seen_by
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.processes import gathered
from graft.terms.requirements import check_classes
from graft.terms.semi_supervised.information_maximisation import information_loss


def nearest_centres(features: Tensor, probabilities: Tensor) -> Tensor:
    """Class `(N,)` of the centre that is nearest to each feature `(N, D)` by cosine distance.

    Centres are means of features weighted by class probabilities `(N, K)`, and once more means of those that they are
    nearest to. A class that nothing is predicted as has none.
    """
    features = F.normalize(features, dim=1)
    predicted = torch.bincount(probabilities.argmax(dim=1), minlength=probabilities.shape[1]) > 0
    weights = probabilities
    for _ in range(2):
        centres = F.normalize(weights.T @ features, dim=1)  # a mean's length does not count
        classes = (features @ centres.T).masked_fill(~predicted, -torch.inf).argmax(dim=1)
        weights = F.one_hot(classes, probabilities.shape[1]).to(features.dtype)
    return classes


class SHOT(Term):
    """The information loss of the target's predictions, and their cross entropy to pseudo-labels.

    Pseudo-labels are of the pretrained network at first, then of what training last made of every sample; all are new
    whenever as many samples have been seen as there are. Raises GraftError without classes and for random weights.
    """

    needs_pretrained = True
    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False
    features: Tensor  # (N, D) of every target sample, as training last saw it
    probabilities: Tensor  # (N, K)
    labels: Tensor  # (N,) pseudo-labels
    seen: Tensor  # samples since these were found

    def __init__(self, weight: NonNegative = 1.0, pseudo_weight: NonNegative = 0.3) -> None:
        super().__init__()
        self.weight = weight
        self.pseudo_weight = pseudo_weight

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "shot")

    def prepare(self, context: TermContext) -> None:
        """Features, probabilities and pseudo-labels of all target samples by the pretrained network."""
        self.check(context)
        features, probabilities, indices = [], [], []
        network = torch.nn.ModuleList([context.backbone, context.target_head])
        modes = {module: module.training for module in network.modules()}
        network.eval()
        with torch.no_grad():
            for batch in context.samples():
                seen = seen_by(context.target_head, context.backbone, batch.inputs)
                embedded = bottleneck_of(context.target_head)(seen)
                features.append(features_of(embedded))
                probabilities.append(classifier_of(context.target_head)(embedded).softmax(dim=1))
                if batch.indices is None:
                    raise GraftError("term.shot keeps a label for every target sample, and these have no number.")
                indices.append(batch.indices)
        for module, training in modes.items():
            module.training = training
        order = torch.cat(indices).argsort()
        self.register_buffer("features", torch.cat(features)[order])
        self.register_buffer("probabilities", torch.cat(probabilities)[order])
        self.register_buffer("labels", nearest_centres(self.features, self.probabilities))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, step: TrainStep) -> Tensor:
        """The sum of both."""
        logits, places = step.logits["target"], step.batch["target"].indices
        assert places is not None  # of training batches
        places = places.to(self.labels.device)
        pseudo = F.cross_entropy(logits, self.labels[places])
        self.remember(places, step.embeddings["target"].detach(), logits.detach().softmax(dim=1))
        return information_loss(logits) + self.pseudo_weight * pseudo

    @torch.no_grad()
    def remember(self, places: Tensor, features: Tensor, probabilities: Tensor) -> None:
        """Keep what all processes' batches gave, and find new pseudo-labels after as many samples as there are."""
        places, features, probabilities = gathered(places), gathered(features), gathered(probabilities)
        self.features[places] = features.to(self.features.dtype)
        self.probabilities[places] = probabilities.to(self.probabilities.dtype)
        self.seen += len(places)
        if self.seen >= len(self.labels):
            self.labels.copy_(nearest_centres(self.features, self.probabilities))
            self.seen.zero_()
