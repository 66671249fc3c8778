"""FedPFT: in one round clients send mixtures of their features, and the server trains a head on draws from them.

Beitollahi et al. (2024), Parametric feature transfer: one-shot federated learning with foundation models.
"""

from typing import Any

from graft.config.types import Count, Positive
from graft.federated.base import Federated
from graft.federated.mixtures import Covariance


class FedPFT(Federated):
    """A client fits a mixture of `components` Gaussians to the features of each of its classes.

    The server draws as many features of a class from a client's mixture as the client has samples of it. The run's
    epochs, optimizer and selection are those of the server's training.
    """

    name = "fedpft"
    trains_at_clients = False

    def __init__(
        self, components: Count = 10, covariance: Covariance = "diag", floor: Positive = 1e-6, **options: Any
    ) -> None:
        super().__init__(**options)
        self.components = components
        self.covariance = covariance
        self.floor = floor
