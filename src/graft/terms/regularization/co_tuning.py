"""Co-Tuning: the old head learns which of its classes each target class looks like (You et al., NeurIPS 2020)."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import Tensor

from graft.config.types import NonNegative
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.base import Teacher, Term, TermContext, TrainStep
from graft.terms.requirements import check_labels, trainable_pretrained_head

LOG_TEMPERATURES = (-3.0, 3.0)  # searched; a net without a single mistake would have its temperature go to 0
STRENGTHS = np.logspace(-4, 4, 9)  # of the logistic regression: sklearn's C, as widely as the reference code searches
FOLDS = 5


def calibration_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature that makes softmax(logits / T) fit the labels best; logits `(N, K)`, labels `(N,)`."""
    logits = logits.double()
    fit = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / np.exp(log_t), labels).item(), bounds=LOG_TEMPERATURES, method="bounded"
    )
    return float(np.exp(fit.x))


def direct_relationship(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`p(y_s | y_t)` `(K_t, K_s)` as the mean source probabilities `(N, K_s)` of each target class.

    The row of a class without samples is 0.
    """
    members = F.one_hot(labels, num_classes).to(probabilities)
    return members.T @ probabilities / members.sum(dim=0).clamp(min=1).unsqueeze(1)


def reverse_relationship(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`p(y_s | y_t)` `(K_t, K_s)` by Bayes from a logistic regression of `p(y_t | y_s)` on source probabilities.

    The regression's strength is the one with the best cross-validated likelihood, which leaves it calibrated.
    The row of a class without samples is 0. Raises GraftError where a class has a single sample.
    """
    inputs, targets = probabilities.numpy(), labels.numpy()
    present, counts = np.unique(targets, return_counts=True)
    if counts.min() < 2:
        raise GraftError(
            "term.co_tuning.relationship=reverse is cross-validated and needs 2 training samples of every target "
            "class. Use term.co_tuning.relationship=direct."
        )
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, max_iter=1000),
        {"C": STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=0),
    ).fit(inputs, targets)
    target_given_source = torch.from_numpy(search.predict_proba(np.eye(inputs.shape[1])))  # (K_s, classes present)
    joint = (target_given_source * probabilities.mean(dim=0).unsqueeze(1)).T
    relationship = probabilities.new_zeros(num_classes, inputs.shape[1])
    relationship[torch.from_numpy(present)] = joint / joint.sum(dim=1, keepdim=True)
    return relationship


RELATIONSHIPS = {"direct": direct_relationship, "reverse": reverse_relationship}


class CoTuning(Term):
    """Cross entropy of a trained copy of the pretrained head against `p(source class | target class)`.

    The relationship is learned once, on the pretrained net's probabilities for the target's training samples;
    they are calibrated where there is source validation data. Raises GraftError where the pretrained weights come
    without their head, or the target without classes.
    """

    needs_pretrained = True
    needs_labels = True
    needs_inputs = False

    relationship: Tensor  # (K_t, K_s)

    def __init__(self, weight: NonNegative = 2.3, relationship: Literal["direct", "reverse"] = "direct") -> None:
        super().__init__()
        if relationship not in RELATIONSHIPS:
            raise GraftError(
                f"term.co_tuning.relationship={relationship!r} is not known. Allowed: {', '.join(RELATIONSHIPS)}."
            )
        self.weight = weight
        self.learn_relationship = RELATIONSHIPS[relationship]

    def prepare(self, context: TermContext) -> None:
        """Learn the relationship, and start the head that trains from the pretrained net's own."""
        self.classifier = trainable_pretrained_head(context, "co_tuning")
        if context.num_classes is None:
            raise GraftError("term.co_tuning needs a target with classes, but it has numbers. Leave the term out.")
        temperature = 1.0
        if context.source_samples is not None:
            temperature = calibration_temperature(*old_outputs(context.teacher, context.source_samples()))
        logits, labels = old_outputs(context.teacher, context.samples())
        probabilities = (logits.double() / temperature).softmax(dim=1)
        relationship = self.learn_relationship(probabilities, labels, context.num_classes)
        self.register_buffer("relationship", relationship.to(logits.dtype))

    def forward(self, step: TrainStep) -> Tensor:
        """Mean cross entropy over the step's target samples; mixed labels mix their classes' rows."""
        labels = check_labels(step.labels.get("target"), "co_tuning")
        expected = self.relationship[labels] if labels.ndim == 1 else labels @ self.relationship
        return F.cross_entropy(self.classifier(step.taken_by(self.classifier, "target")), expected)


def old_outputs(teacher: Teacher, samples: Iterable[DomainBatch]) -> tuple[Tensor, Tensor]:
    """The pretrained net's logits `(N, K_s)` and the labels `(N,)` of all samples."""
    pairs = [(teacher.logits(one.inputs), check_labels(one.labels, "co_tuning")) for one in samples]
    logits, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return logits, labels
