"""FedBN: every client keeps its own BatchNorm, and all else is averaged (Li et al., ICLR 2021)."""

from typing import cast

from torch import nn

from graft.errors import GraftError
from graft.federated.base import Federated
from graft.federated.messages import names_of_batchnorm
from graft.module import TransferModule


class FedBN(Federated):
    """Scales, shifts and statistics of BatchNorm stay with the client; a sample is predicted by its owner's network.

    The server's own network, which is kept as the run's model, has the mean of the clients' BatchNorm: it is for
    samples of nobody, and no client sends anything for it but in the last round.
    """

    name = "fedbn"
    keeps_parts = True

    def check(self, module: nn.Module, epochs: int) -> None:
        """GraftError without a BatchNorm that trains."""
        module = cast(TransferModule, module)
        trained = {f"backbone.{name}" for phase in module.phases(epochs) for name in phase.parameters}
        trained |= {name for name, _ in module.named_parameters() if name.startswith("heads.")}
        if not trained & names_of_batchnorm(module):
            raise GraftError(
                f"federated=fedbn: no BatchNorm trains in backbone={module.backbone.name} under this strategy, so that "
                "clients have nothing to keep. Use strategy=full or norm_only on a backbone with BatchNorm, such as "
                "backbone=resnet18, or federated=fedavg."
            )

    def is_personal(self, name: str, batchnorm: frozenset[str]) -> bool:
        """BatchNorm's."""
        return name in batchnorm
