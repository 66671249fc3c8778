"""What a federated method is: how clients train, what of the network stays with them, and what the server does."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypedDict

from annotated_types import Interval
from torch import Tensor, nn

from graft.config.types import Count, Fraction, FractionBelowOne, Positive, Seed
from graft.federated.messages import Message, average

Partition = Literal["iid", "dirichlet", "dirichlet_by_class", "column", "sources", "own"]
Participation = Annotated[float, Interval(gt=0, le=1)]


class NoFederation(TypedDict):
    """The keys of `federated=none`."""


class Federated:
    """Keys that every method has, and hooks that do nothing.

    An epoch of the run is a round: clients that take part get the server's weights, train `local_epochs` on their own
    samples or take `local_steps`, with an optimizer that begins anew, and send back what has changed.
    """

    name = "federated"
    trains_at_clients = True  # False: clients send statistics of features, and the server trains
    has_server = True  # False: no common model
    keeps_parts = False  # True: clients have weights of their own, so that each sample is predicted by its owner's

    def __init__(
        self,
        clients: Count | None = 10,
        partition: Partition = "iid",
        beta: Positive = 0.1,
        column: str | None = None,
        partition_seed: Seed = 0,
        local_epochs: Count | None = 1,
        local_steps: Count | None = None,
        participation: Participation = 1.0,
        drop_out: FractionBelowOne = 0.0,
        corrupt: Fraction = 0.0,
        on_bad_client: Literal["reject", "stop"] = "reject",
        weighting: Literal["samples", "equal"] = "samples",
        server_momentum: FractionBelowOne = 0.0,
    ) -> None:
        self.clients = clients
        self.partition = partition
        self.beta = beta
        self.column = column
        self.partition_seed = partition_seed
        self.local_epochs = local_epochs
        self.local_steps = local_steps
        self.participation = participation
        self.drop_out = drop_out
        self.corrupt = corrupt
        self.on_bad_client = on_bad_client
        self.weighting = weighting
        self.server_momentum = server_momentum

    def check(self, module: nn.Module, epochs: int) -> None:
        """Raise GraftError for a network that the method has no use for, before anything trains."""

    def is_personal(self, name: str, batchnorm: frozenset[str]) -> bool:
        """Whether a tensor stays with its client; `batchnorm` are the names of those of BatchNorm."""
        return False

    def correct_gradients(self, parameters: Mapping[str, nn.Parameter], start: Message) -> None:
        """Change the gradients of a client's step; `start` are the server's weights that it began with."""

    def aggregate(
        self, start: Message, answers: Mapping[int, Message], weights: Mapping[int, float], velocity: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The server's new weights: the clients' mean (FedAvg), with `server_momentum` a step towards it (FedAvgM).

        `velocity` is what the server remembers between rounds, and is changed in place.
        """
        mean = average(answers, weights)
        if not self.server_momentum:
            return mean
        for name, value in mean.items():
            if not name.endswith(("running_mean", "running_var")):
                before = velocity.get(name)
                step = start[name] - value
                velocity[name] = step if before is None else self.server_momentum * before.to(step) + step
                mean[name] = start[name] - velocity[name]
        return mean
