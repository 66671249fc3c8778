"""The checkpoint whose predictions on the target are the surest."""

from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from graft.selection.base import ClassPredictions
from graft.tasks.metrics import Mean


class MeanEntropy(Mean):
    """Mean entropy of predicted classes in nats; of one output, that of yes or no."""

    higher_is_better = False

    def update(self, domain: str, features: Tensor, logits: Tensor) -> None:  # type: ignore[override]
        """Add a batch by its logits `(B, K)`."""
        logits = logits.float()
        predicted = Bernoulli(logits=logits[:, 0]) if logits.shape[1] == 1 else Categorical(logits=logits)
        super().update(predicted.entropy().sum(), len(logits))


class Entropy(ClassPredictions):
    """The lowest mean entropy of the target's validation predictions: no label is used (Morerio et al., ICLR 2018)."""

    name = "entropy"

    def metric(self) -> Mean:
        """The mean entropy."""
        return MeanEntropy()
