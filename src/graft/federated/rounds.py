"""A fit whose epochs are rounds: one network stands for the server and for every client in turn."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from graft.errors import Diverged, listed
from graft.federated.clients import NOBODY
from graft.federated.federation import Federation
from graft.federated.messages import Message, exchanged, is_finite, names_of_batchnorm, put, size_of, taken
from graft.federated.plan import Round, Visit
from graft.module import TransferModule
from graft.training.lightning import epochs_of
from graft.training.schedules import Pace


class Rounds(Callback):
    """Puts the server's weights into the network when a client begins, takes them out when it is done, and averages.

    Stands before callbacks that save, so that what they see after a round's last step are the server's new weights.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self._pace = Pace()
        self._names: list[str] = []  # of what is exchanged in this phase
        self._parameters: dict[str, nn.Parameter] = {}
        self._server: Message | None = None  # weights that a validation's owners have taken the place of
        self._owner: int | None = None  # whose weights are in the network, in a validation or test

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let rates follow the rounds: every client of a round has the same, whoever was before it."""
        assert isinstance(pl_module, TransferModule)
        longest = max(self.federation.plan.steps)
        self._pace.steps_per_round, self._pace.total = longest, longest * epochs_of(trainer)
        pl_module.pace = self._pace
        self.federation.to(pl_module.device)
        self._names = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin a client where its first step comes."""
        assert isinstance(pl_module, TransferModule)
        visit, step = self.federation.plan.round(trainer.current_epoch).at(batch_idx)
        self._pace.step = trainer.current_epoch * self._pace.steps_per_round + (
            step * self._pace.steps_per_round // visit.steps
        )
        if batch_idx == 0 or not self._names:
            self._names = exchanged(pl_module)
            trained = dict(pl_module.named_parameters())
            self._parameters = {name: trained[name] for name in self._names if name in trained}
        if batch_idx == 0:
            self.federation.start = taken(pl_module, self._names)
        if step == 0:
            put(pl_module, {**self.federation.start, **self._own(visit.client)})
            trainer.optimizers[0].state.clear()  # a client's optimizer begins anew in every round

    def _own(self, client: int) -> Message:
        """What a client keeps of what trains in this phase."""
        names = {*self._names}
        return {name: value for name, value in self.federation.owned_by(client).items() if name in names}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """What the method adds to a client's gradients."""
        self.federation.method.correct_gradients(self._parameters, self.federation.start)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a client's answer where it is done; close the round behind the last one."""
        visit, step = self.federation.plan.round(trainer.current_epoch).at(batch_idx)
        if step + 1 == visit.steps or trainer.is_last_batch:  # the Trainer's limits may cut a round short
            self._receive(trainer, pl_module, visit)
        if trainer.is_last_batch:
            done = self.federation.plan.round(trainer.current_epoch)
            self._close(trainer, pl_module, done)

    def _receive(self, trainer: pl.Trainer, module: pl.LightningModule, visit: Visit) -> None:
        """The answer of a client, which counts where all of it is finite."""
        client, number = visit.client, trainer.current_epoch
        answer = taken(module, self._names)
        if self.federation.is_corrupt(number, client):
            answer = {name: torch.full_like(value, torch.nan) for name, value in answer.items()}
        self._accept(module, number, client, answer)

    def _accept(self, module: pl.LightningModule, number: int, client: int, answer: Message | None) -> None:
        """Count an answer in the round; None is one that cannot be used."""
        federation, batchnorm = self.federation, names_of_batchnorm(module)
        if answer is None or not is_finite(answer):
            federation.rejected.append(client)
            if federation.method.on_bad_client == "stop":
                self._stop(number, [client])
            return
        own = {name: v for name, v in answer.items() if federation.method.is_personal(name, batchnorm)}
        if own:
            federation.personal[client] = {**federation.personal.get(client, {}), **own}
        federation.answers[client] = {name: value for name, value in answer.items() if name not in own}

    def _close(self, trainer: pl.Trainer, module: pl.LightningModule, done: Round, down: int | None = None) -> None:
        """The server's new weights, which are in the network from then on; each client got `down` bytes, or as many."""
        federation, method, number = self.federation, self.federation.method, trainer.current_epoch
        if not federation.answers:
            self._stop(number, federation.rejected)
        new: Message = {}
        if method.has_server:
            new = method.aggregate(federation.start, federation.answers, federation.weights, federation.velocity)
        put(module, {**federation.start, **new})
        up = size_of(new.values())
        federation.note(done, [*federation.answers], up, up if down is None else down)
        federation.start, federation.answers, federation.rejected = {}, {}, []

    def _stop(self, number: int, clients: list[int]) -> None:
        names = listed([self.federation.name(client) for client in dict.fromkeys(clients)], 10)
        every = "every answer of" if self.federation.method.on_bad_client == "reject" else "an answer of"
        then = "" if every.startswith("every") else " To leave such clients out: federated.on_bad_client=reject."
        raise Diverged(
            f"Diverged: {every} round {number + 1} holds NaN or infinity: client {names}. Nothing could be averaged.\n"
            f"Lower optimizer.lr, set training.gradient_clip_norm=1, or look at the samples of these clients.{then}"
        )

    # Each sample by its owner's network, where clients keep something

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *args: Any
    ) -> None:
        """Let the owner of the batch's samples predict them."""
        self._enter_owner(pl_module, "val", batch)

    def on_test_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *args: Any) -> None:
        """Let the owner of the batch's samples predict them."""
        self._enter_owner(pl_module, "test", batch)

    def _enter_owner(self, module: pl.LightningModule, split: str, batch: Any) -> None:
        federation = self.federation
        if not federation.method.keeps_parts or "target" not in batch or not federation.personal:
            return
        owner = int(federation.clients.owners[split][int(batch["target"].indices[0])])
        if owner == self._owner:
            return
        if self._server is None:
            names = dict.fromkeys(name for message in federation.personal.values() for name in message)
            self._server = taken(module, names)
        if owner not in federation.personal and federation.method.has_server:
            owner = NOBODY  # a client that has not taken part yet
        put(module, {**self._server, **federation.owned_by(owner)})
        self._owner = owner

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the network back to the server."""
        self._leave_owner(pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the network back to the server."""
        self._leave_owner(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the network back to the server."""
        self._leave_owner(pl_module)

    def _leave_owner(self, module: pl.LightningModule) -> None:
        if self._server is not None:
            put(module, self._server)
        self._server, self._owner = None, None

    def state_dict(self) -> dict[str, Any]:
        """The federation's, in the middle of a round or between two."""
        return self.federation.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.federation.load_state_dict(state_dict)
