"""Rounds of a federation over a network, in the fit of the server and in that of a client."""

import warnings
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl

from graft.errors import GraftError
from graft.federated.messages import Message, exchanged, is_finite, put, size_of, taken
from graft.federated.plan import Round
from graft.federated.rounds import Rounds
from graft.module import TransferModule
from graft.training.lightning import epochs_of

if TYPE_CHECKING:  # of which each makes its own rounds
    from graft.federate.client import ClientFederation
    from graft.federate.server import ServerFederation


class ServerRounds(Rounds):
    """Asks the clients where the one step of an epoch is, and averages."""

    federation: "ServerFederation"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the clients."""
        module = cast(TransferModule, pl_module)
        module.turn = "of others"
        warnings.filterwarnings("ignore", message="`training_step` returned `None`")
        self.federation.begin(module, cast(Any, trainer).datamodule)
        super().on_train_start(trainer, module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What clients get."""
        self._pace.step = trainer.current_epoch * self._pace.steps_per_round
        self._names = exchanged(pl_module)
        self.federation.start = taken(pl_module, self._names)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A round: everybody who is asked trains at the same time; where nobody answers, the others are asked."""
        federation, number = self.federation, trainer.current_epoch
        message = federation.changed_in(pl_module, self._names)
        asked = [visit.client for visit in federation.plan.round(number).visits]
        found = federation.ask(number, asked, message)
        if not found and (others := [one for one in range(len(federation.clients)) if one not in asked]):
            found, asked = federation.ask(number, others, message), [*asked, *others]
        if not found:
            raise GraftError(f"No client answered in round {number + 1}. What Flower wrote: {federation.logs}")
        for client, answer in found.items():
            self._accept(pl_module, number, client, self._as_expected(answer))
        dropped = tuple(client for client in asked if client not in found)
        self._close(trainer, pl_module, Round(tuple(asked), dropped, ()), size_of(message.values()))

    def _as_expected(self, answer: Message) -> Message | None:
        """An answer on the server's device; None where it has not the tensors that were asked for, or not finite."""
        start = self.federation.start
        if {name: value.shape for name, value in answer.items()} != {name: one.shape for name, one in start.items()}:
            return None
        return {name: answer[name].to(value) for name, value in start.items()}


class ClientRounds(Rounds):
    """Begins a round where the server asks for it, leaves out the others, and answers."""

    federation: "ClientFederation"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the first round, which says how many steps the client with most samples takes: rates follow them."""
        head, message = self.federation.message()
        super().on_train_start(trainer, pl_module)
        longest = head.get("longest", 1)
        self._pace.steps_per_round, self._pace.total = longest, longest * epochs_of(trainer)
        self.federation.keep((head, message))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin where the round's first step is."""
        module, federation = cast(TransferModule, pl_module), self.federation
        if batch_idx == 0:
            head, message = federation.message()
            if head["say"] != "round" or head["round"] > trainer.current_epoch:
                federation.keep((head, message))
                module.turn = "none"
                return
            module.turn = "its own"
            put(module, message)
            self._names = exchanged(module)
            trained = dict(module.named_parameters())
            self._parameters = {name: trained[name] for name in self._names if name in trained}
            federation.start = taken(module, self._names)
            trainer.optimizers[0].state.clear()
            self._received = size_of(message.values())
        steps = federation.plan.steps[0]
        self._pace.step = trainer.current_epoch * self._pace.steps_per_round + (
            batch_idx * self._pace.steps_per_round // steps
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Answer behind the last step."""
        if not trainer.is_last_batch:
            return
        federation = self.federation
        answer = taken(pl_module, self._names)
        federation.answer({}, answer)
        sent = {"bytes_down": self._received, "bytes_up": size_of(answer.values())}
        bad = [] if is_finite(answer) else [0]
        federation.history.append({"clients": 1, "dropped": [], "rejected": bad, **sent})
        print(f"Round {trainer.current_epoch + 1}: {sent['bytes_up'] / 2**20:.2f} MiB sent", flush=True)
