"""FedProx: clients stay near the server's weights by a proximal term (Li et al., MLSys 2020)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from graft.config.types import NonNegative
from graft.federated.base import Federated
from graft.federated.messages import Message


class FedProx(Federated):
    """Each client minimises its loss plus `mu / 2 ||w - w_server||^2`, by the gradient `mu (w - w_server)`."""

    name = "fedprox"

    def __init__(self, mu: NonNegative = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.mu = mu

    def correct_gradients(self, parameters: Mapping[str, nn.Parameter], start: Message) -> None:
        """Add the proximal term's gradient."""
        for name, parameter in parameters.items():
            if parameter.grad is not None and name in start:
                parameter.grad.add_(parameter.detach() - start[name].to(parameter), alpha=self.mu)
