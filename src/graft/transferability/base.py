"""What a measure of transferability is: a number of a backbone and data, higher where transfer should go better."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    from graft.cache.extract import FeatureSet

Kind = Literal["classes", "labels", "numbers"]
RANK = 1e-10  # of the largest singular value: what is smaller is rounding


@dataclass(frozen=True)
class Evidence:
    """What is known of a backbone on the target: frozen features of its training and validation samples."""

    features: np.ndarray  # (N, D), of training samples
    labels: np.ndarray  # (N,) classes from 0, (N, K) of 0 and 1 for several labels, (N,) numbers
    val_features: np.ndarray  # (M, D)
    val_labels: np.ndarray
    num_classes: int | None  # None for numbers
    source: np.ndarray | None = None  # (N, Z) probabilities of the pretrained classes; None without a pretrained head
    parameters: int = 0  # of the backbone
    imagenet: float | None = None  # top-1 accuracy of its weights there, where known

    @classmethod
    def of(cls, train: "FeatureSet", val: "FeatureSet", classes: Sequence[str] | None) -> "Evidence":
        """What features of both splits say by themselves; `classes` are None where labels are numbers."""
        assert train.labels is not None  # nobody measures without
        assert val.labels is not None  # validation always has them
        return cls(
            features=train.features.double().numpy(),
            labels=train.labels.numpy(),
            val_features=val.features.double().numpy(),
            val_labels=val.labels.numpy(),
            num_classes=len(classes) if classes else None,
        )

    @property
    def kind(self) -> Kind:
        """What the labels are."""
        if self.num_classes is None:
            return "numbers"
        return "labels" if self.labels.ndim == 2 else "classes"

    @cached_property
    def columns(self) -> np.ndarray:
        """Labels as numbers `(N, K)`: a column for each class or label, or the standardised numbers `(N, 1)`."""
        if self.kind == "numbers":
            return ((self.labels - self.labels.mean()) / (self.labels.std() or 1.0)).reshape(-1, 1)
        return self.labels if self.kind == "labels" else np.eye(self.num_classes or 0)[self.labels]

    def subset(self, indices: np.ndarray) -> "Evidence":
        """The same with some of the training samples, which may repeat."""
        source = None if self.source is None else self.source[indices]
        return replace(self, features=self.features[indices], labels=self.labels[indices], source=source)


class Measure:
    """One measure. Higher is better for all of them; a refusal is a reason, not an error."""

    name: str
    title: str
    paper: str
    means: str  # a sentence: what it measures
    not_for: str  # and where it misleads
    kinds: ClassVar[Sequence[Kind]] = ("classes",)
    needs_source = False
    most = 2000  # training samples that it takes: more take long and change little

    def refusal(self, evidence: Evidence) -> str | None:
        """Why it says nothing here; None where it does."""
        if evidence.kind not in self.kinds:
            return {"numbers": "not for numbers", "labels": "not for several labels", "classes": "not for classes"}[
                evidence.kind
            ]
        if self.needs_source and evidence.source is None:
            return "no pretrained head"
        return None

    def value(self, evidence: Evidence) -> float:
        """The measure itself, of float64 features."""
        raise NotImplementedError

    def resampled(self, evidence: Evidence, resamples: int) -> list[float]:
        """The measure of random halves of the training samples; none for what does not depend on them.

        Halves spread as much as whole samples drawn with replacement (Shao and Wu, 1989), which are no choice here: a
        sample that is there twice is perfect evidence to a covariance, and to a pair of neighbours.
        """
        random, size = np.random.default_rng(0), len(evidence.labels)
        return [self.value(evidence.subset(random.permutation(size)[: size // 2])) for _ in range(resamples)]


class HeldOut(Measure):
    """A measure that learns from the training samples and is scored on the validation samples."""

    kinds: ClassVar[Sequence[Kind]] = ("classes", "labels", "numbers")
    most = 10_000

    def predictions(self, evidence: Evidence) -> np.ndarray:
        """What it makes of the validation samples: classes `(M,)`, 0 and 1 `(M, K)`, or numbers `(M,)`."""
        raise NotImplementedError

    def refusal(self, evidence: Evidence) -> str | None:
        """Without validation samples there is nothing to score on."""
        return super().refusal(evidence) or (None if len(evidence.val_labels) else "no validation samples")

    def value(self, evidence: Evidence) -> float:
        """Accuracy on validation, or R^2 of numbers."""
        return held_out_score(self.predictions(evidence), evidence.val_labels, evidence.kind)

    def resampled(self, evidence: Evidence, resamples: int) -> list[float]:
        """Scores on bootstrap resamples of the validation samples; what was learned stays."""
        predicted, labels = self.predictions(evidence), evidence.val_labels
        random, size = np.random.default_rng(0), len(labels)
        drawn = [random.integers(0, size, size) for _ in range(20 * resamples)]  # each costs next to nothing
        return [held_out_score(predicted[one], labels[one], evidence.kind) for one in drawn]


def held_out_score(predicted: np.ndarray, labels: np.ndarray, kind: Kind) -> float:
    """Fraction that is right, over all labels where there are several; R^2 of numbers."""
    if kind != "numbers":
        return float((predicted == labels).mean())
    spread = np.square(labels - labels.mean()).sum()
    return float(1 - np.square(predicted - labels).sum() / spread) if spread > 0 else 0.0


def directions(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors `(N, R)` and singular values `(R,)` of features `(N, D)`, without those of rounding."""
    left, values, _ = np.linalg.svd(features, full_matrices=False)
    kept = values > RANK * values.max(initial=0.0)
    return left[:, kept], values[kept]
