"""How unsure predictions are."""

from torch import Tensor


def entropies(logits: Tensor) -> Tensor:
    """Entropy `(B,)` of each sample's class probabilities, in nats; logits `(B, K)`."""
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)
