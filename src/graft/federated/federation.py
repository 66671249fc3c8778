"""A federation while it runs: the server's state between two steps, which checkpoints hold, and its record."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graft.data.samples import generator
from graft.data.sampling import EvalBatches, TrainBatches
from graft.federated.base import Federated
from graft.federated.batches import ClientBatches, OwnersBatches, batches_of_client
from graft.federated.clients import NOBODY, Clients
from graft.federated.messages import Message, average
from graft.federated.plan import Plan, Round

FEDERATION = "federation"  # key of what clients keep, in a checkpoint of weights alone


class Federation:
    """The clients of a run, what they answered in the running round, and what they keep for themselves."""

    pretrains = True  # False: the network comes from elsewhere
    validates = True  # False: rounds are validated elsewhere
    trains_elsewhere = False  # True: clients are on other machines

    def __init__(self, method: Federated, clients: Clients, batch_size: int, seed: int) -> None:
        self.method = method
        self.clients = clients
        self.seed = seed
        self.sizes = [len(share) for share in clients.train]  # training samples of each client
        steps = [self._local_steps(size, batch_size) for size in self.sizes]
        self.plan = Plan(steps, method.participation, method.drop_out, seed)
        self.start: dict[str, Tensor] = {}  # the server's weights, while clients train
        self.answers: dict[int, dict[str, Tensor]] = {}  # of the running round
        self.rejected: list[int] = []  # in the running round
        self.personal: dict[int, Message] = {}  # what a client keeps; entries are replaced, never changed
        self.velocity: dict[str, Tensor] = {}  # of the server's momentum
        self.history: list[dict[str, Any]] = []  # a record of each round

    def _local_steps(self, samples: int, batch_size: int) -> int:
        method = self.method
        if method.local_steps is not None:
            return method.local_steps
        return (method.local_epochs or 1) * len(batches_of_client(samples, batch_size, (), 0, None))

    # For the data module

    def train_batches(self, batch_size: int, seed: tuple[object, ...], epoch: int) -> TrainBatches:
        """The batches of a round, and of those that follow it."""
        return ClientBatches(self.clients.train, batch_size, seed, self.plan, self.method.local_steps, epoch)

    def eval_batches(self, split: str, batch_size: int) -> EvalBatches | None:
        """Batches of one owner each, where a sample is predicted by its owner's network."""
        return OwnersBatches(self.clients.owners[split], batch_size) if self.method.keeps_parts else None

    def samples(self, batch_size: int) -> int:
        """Samples that are drawn in the first round."""
        method = self.method
        return sum(
            visit.steps * batch_size if method.local_steps else self.sizes[visit.client] * (method.local_epochs or 1)
            for visit in self.plan.round(0).visits
        )

    def total_steps(self, rounds: int) -> int:
        """Optimizer steps of so many rounds."""
        return sum(self.plan.round(number).steps for number in range(rounds))

    # In a round

    @property
    def weights(self) -> dict[int, float]:
        """What each client counts in a mean."""
        by_samples = self.method.weighting == "samples"
        return {client: float(size) if by_samples else 1.0 for client, size in enumerate(self.sizes)}

    def is_corrupt(self, number: int, client: int) -> bool:
        """Whether a client's answer is made NaN on purpose, as `corrupt` asks."""
        if not self.method.corrupt:
            return False
        drawn = torch.rand((), generator=generator(self.seed, "corrupt", number, client), dtype=torch.float64)
        return float(drawn) < self.method.corrupt

    def owned_by(self, client: int) -> Message:
        """What a client keeps; of nobody, the mean of what clients keep."""
        if client != NOBODY:
            return self.personal.get(client, {})
        return self.mean_of_personal()

    def mean_of_personal(self) -> Message:
        """The mean of what clients keep for themselves; empty where none does."""
        return average(self.personal, self.weights) if self.personal else {}

    def note(self, done: Round, answered: Sequence[int], up: int, down: int) -> None:
        """Put a round down, in which a client's answer has so many bytes, and what it got has so many."""
        up, down = (up, down) if self.method.has_server else (0, 0)
        self.history.append(
            {
                "clients": len(answered),
                "dropped": list(done.dropped),
                "rejected": list(self.rejected),
                "bytes_down": down * len(done.asked),
                "bytes_up": up * (len(answered) + len(self.rejected)),
            }
        )

    def name(self, client: int) -> str:
        """What messages call a client."""
        return self.clients.names[client]

    # Over a network (graft.federate); nothing where clients take turns in one process

    def make_rounds(self) -> Any:
        """The callback of its rounds, where it is not graft.federated.rounds."""
        return None

    def join(self, module: nn.Module, data: Any) -> None:
        """Let a client have the server's network."""

    def see_network(self, module: nn.Module) -> None:
        """Look at the network before the strategy changes it."""

    def tell(self, selected: Mapping[str, Any], module: nn.Module) -> None:
        """Let the clients have the round that was chosen, which is in the module."""

    def outcome(self, module: nn.Module) -> dict[str, Any] | None:
        """The round that was chosen elsewhere, which is then in the module; None where the run chooses."""
        return None

    def close(self, why: str = "") -> None:
        """End what runs beside the run; `why` where it failed."""

    # In checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on, also inside a round."""
        return {
            "start": self.start,
            "answers": self.answers,
            "rejected": self.rejected,
            "velocity": self.velocity,
            "history": self.history,
            **self.kept(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self.start, self.answers = dict(state["start"]), dict(state["answers"])
        self.rejected, self.velocity = list(state["rejected"]), dict(state["velocity"])
        self.history = list(state["history"])
        self.take(state)

    def to(self, device: torch.device) -> None:
        """Bring tensors of a checkpoint to where the network is."""

        def moved(message: Message) -> dict[str, Tensor]:
            return {name: value.to(device) for name, value in message.items()}

        self.start, self.velocity = moved(self.start), moved(self.velocity)
        self.answers = {client: moved(message) for client, message in self.answers.items()}
        self.personal = {client: moved(message) for client, message in self.personal.items()}

    def kept(self) -> dict[str, Any]:
        """What belongs to the weights of this moment beside the server's."""
        return {"personal": dict(self.personal)}

    def take(self, kept: Mapping[str, Any] | None) -> None:
        """Let clients have what they kept when the server's weights were those that are in the module now."""
        if kept is not None:
            self.personal = dict(kept["personal"])
