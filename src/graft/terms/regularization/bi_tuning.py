"""Bi-Tuning: contrast with stored keys, by the classifier and by a projector (Zhong et al., arXiv 2011.06182)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.config.types import Count, Fraction, NonNegative, Positive
from graft.errors import GraftError
from graft.inputs.base import Inputs
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.processes import of_whole_batch
from graft.terms.requirements import check_labels


def contrast(query: Tensor, own: Tensor, keys: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Mean over samples and their positive keys of `-log softmax(query . key / temperature)`.

    `query` and `own`, a positive key of each sample's own, `(B, D)`; `keys` for all `(M, D)`; `positive` `(B, M)`.
    """
    similarities = torch.cat([(query * own).sum(dim=1, keepdim=True), query @ keys.T], dim=1)
    log_probabilities = F.log_softmax(similarities / temperature, dim=1)
    positive = F.pad(positive, (1, 0), value=True)
    return -((log_probabilities * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def with_one(features: Tensor) -> Tensor:
    """Features `(B, D)` with a 1 for the bias beside them, on the unit sphere `(B, D + 1)`."""
    return F.normalize(F.pad(features, (0, 1), value=1.0), dim=1)


class Keys(nn.Module):
    """The last `length` keys of every class: `h` to meet the classifier's weights, `z` the projector's outputs."""

    h: Tensor  # (K, length, D + 1)
    z: Tensor  # (K, length, P)
    seen: Tensor  # (K,) keys ever added

    def __init__(self, num_classes: int, length: int, h_size: int, z_size: int) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(num_classes, length, h_size))
        self.register_buffer("z", torch.zeros(num_classes, length, z_size))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.long))

    def add(self, h: Tensor, z: Tensor, labels: Tensor) -> None:
        """Put keys `(B, ...)` into the queues of their classes, over the oldest ones."""
        length = self.h.shape[1]
        for label in labels.unique():
            newest = (labels == label).nonzero().squeeze(1)
            slots = (self.seen[label] + torch.arange(len(newest), device=labels.device)) % length
            newest, slots = newest[-length:], slots[-length:]
            self.h[label, slots], self.z[label, slots] = h[newest].to(self.h), z[newest].to(self.z)
            self.seen[label] += (labels == label).sum()

    def stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every key there is: `h` `(M, D + 1)`, `z` `(M, P)` and their classes `(M,)`."""
        filled = torch.arange(self.h.shape[1], device=self.seen.device) < self.seen.unsqueeze(1)
        return self.h[filled], self.z[filled], filled.nonzero()[:, 0]


class BiTuning(Term):
    """Contrastive cross entropy of the classifier plus categorical contrastive learning of a projector.

    Positives are a sample's own key and the stored keys of its class, negatives those of the other classes. Keys come
    from a copy of the backbone that follows it slowly and is not trained. The paper makes them from a second
    augmented view; here they are of the same view. Raises GraftError without classes or with a head that is not linear.
    """

    needs_labels = True
    needs_hard_labels = True
    needs_linear_head = True

    def __init__(
        self,
        weight: NonNegative = 1.0,
        temperature: Positive = 0.07,
        momentum: Fraction = 0.999,
        keys_per_class: Count = 40,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise GraftError(f"term.bi_tuning.temperature={temperature} must be above 0; the paper's is 0.07.")
        if not 0 <= momentum <= 1:
            raise GraftError(f"term.bi_tuning.momentum={momentum} must be in [0, 1]; the paper's is 0.999.")
        for key, value in (("keys_per_class", keys_per_class), ("projection_size", projection_size)):
            if value < 1:
                raise GraftError(f"term.bi_tuning.{key}={value} must be at least 1.")
        self.weight = weight
        self.temperature = temperature
        self.momentum = momentum
        self.keys_per_class = keys_per_class
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make projector, key encoder and empty queues."""
        linear = only_linear(context.target_head)
        if context.num_classes is None or linear is None or linear.out_features != context.num_classes:
            raise GraftError(
                "term.bi_tuning contrasts samples with the weights of a linear head over classes. Use head=linear and "
                "task=multiclass with data that have classes, or leave the term out."
            )
        size = context.backbone.feature_size
        self.projector = nn.Linear(size, self.projection_size)
        self.key_backbone = copy.deepcopy(context.backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.keys = Keys(context.num_classes, self.keys_per_class, size + 1, self.projection_size)
        self._trained = (context.backbone, linear)  # in a tuple, so that they do not become parts of this module

    def forward(self, step: TrainStep) -> Tensor:
        """Both contrasts of the step's target samples; then their keys join the queues."""
        labels = check_labels(step.labels.get("target"), "bi_tuning")
        if labels.ndim != 1:
            raise GraftError(
                "term.bi_tuning needs one class a sample, but the labels are mixed or several. Turn mixup and CutMix "
                "off, or leave the term out."
            )
        features, linear = step.features["target"], self._trained[1]
        key_h, key_z = self.encode_keys(step.inputs["target"])
        h, z, classes = self.keys.stored()
        positive = labels.unsqueeze(1) == classes
        # As in the reference code, the contrast moves the features and leaves the classifier's weights alone.
        class_vectors = F.normalize(torch.cat([linear.weight, linear.bias.unsqueeze(1)], dim=1), dim=1).detach()
        discriminative = contrast(class_vectors[labels], with_one(features), h, positive, self.temperature)
        projected = F.normalize(self.projector(features), dim=1)
        categorical = contrast(projected, key_z, z, positive, self.temperature)
        self.keys.add(*map(of_whole_batch, (key_h, key_z, labels)))  # else each process would have queues of its own
        return discriminative + categorical

    @torch.no_grad()
    def encode_keys(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Keys `h` `(B, D + 1)` and `z` `(B, P)` of inputs, after the key encoder moved towards the trained one."""
        backbone = self._trained[0]
        for key, query in ((self.key_backbone, backbone), (self.key_projector, self.projector)):
            for own, trained in zip(key.parameters(), query.parameters(), strict=True):
                own.lerp_(trained, 1 - self.momentum)
            originals = dict(query.named_modules())  # stochastic depth may have added some
            for name, copied in key.named_modules():
                copied.training = originals[name].training  # what a strategy froze is frozen in both
        features = self.key_backbone(inputs)
        return with_one(features), F.normalize(self.key_projector(features), dim=1)


def only_linear(head: nn.Module) -> nn.Linear | None:
    """The linear layer that a head consists of; None for any other head."""
    linears = [module for module in head.modules() if not any(module.children())]
    return linears[0] if len(linears) == 1 and isinstance(linears[0], nn.Linear) else None
