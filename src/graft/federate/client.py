"""A client of a federation over a network: it trains on samples of its own when the server asks it to."""

import socket
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from graft.config.types import Natural, Positive
from graft.data.samples import DomainData
from graft.data.sampling import TrainBatches
from graft.errors import GraftError
from graft.federate import LOOPBACK, frames
from graft.federate.agreement import check_agreement, check_network
from graft.federate.flower import LOGS, Flower, environment_of, file_of, free_port
from graft.federate.rounds import ClientRounds
from graft.federated.base import Federated
from graft.federated.batches import ClientBatches
from graft.federated.clients import NOBODY, Clients, divide
from graft.federated.federation import Federation
from graft.federated.messages import PARTS, Message, put, tensors_of

RECONNECT_S = 600.0  # after which Flower gives a server up that it cannot reach
LAST_WORD_S = 10.0  # until an answer is with the server: Flower asks for what there is to send every second or so


class Client:
    """Where the server is, and what this client is called."""

    role = "client"

    def __init__(
        self,
        address: str = f"{LOOPBACK[0]}:9092",
        name: str | None = None,
        number: Natural | None = None,
        wait_s: Positive = 7200.0,
        ca: str | None = None,
        flower: str | None = None,
    ) -> None:
        self.address = address
        self.name = name or socket.gethostname()
        self.number = number
        self.wait_s = wait_s
        self.ca = file_of("federate.ca", ca)
        self.programs = environment_of("federate.flower", flower)

    def federation(
        self, method: Federated, target: DomainData, batch_size: int, config: Mapping[str, Any]
    ) -> "ClientFederation":
        """A federation of this client alone; with a common partition it has one share of the data that all have."""
        if method.partition == "own":
            owners = {name: torch.zeros(len(getattr(target, name)), dtype=torch.int64) for name in ("val", "test")}
            clients = Clients((self.name,), (torch.arange(len(target.train)),), owners)
            return ClientFederation(self, self.name, method, clients, batch_size, config)
        everyone, number = divide(method, target), self.number or 0
        if number >= len(everyone):
            raise GraftError(f"federate.number={number}: there are shares 0 to {len(everyone) - 1}.")
        owners = {
            name: torch.where(one == number, 0, torch.full_like(one, NOBODY)) for name, one in everyone.owners.items()
        }
        clients = Clients((everyone.names[number],), (everyone.train[number],), owners)
        return ClientFederation(self, number, method, clients, batch_size, config)


class ClientFederation(Federation):
    """A client's part of a federation: the messages of the server, and what it answered."""

    pretrains = False  # the network comes from the server
    validates = False  # the server does

    def __init__(
        self,
        settings: Client,
        drawn_by: int | str,
        method: Federated,
        clients: Clients,
        batch_size: int,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(method, clients, batch_size, config["seed"])
        self.settings, self.config, self.drawn_by = settings, config, drawn_by
        self._flower: Flower | None = None
        self._connection: Connection | None = None  # that waits for an answer
        self._answered = 0.0
        self._last: tuple[dict[str, Any], dict[str, Tensor]] | None = None  # that nobody has taken yet

    def make_rounds(self) -> ClientRounds:
        """What waits for the server's messages."""
        return ClientRounds(self)

    def train_batches(self, batch_size: int, seed: tuple[object, ...], epoch: int) -> TrainBatches:
        """The client's own batches, which are those that it has where all clients are in one process."""
        method, plan = self.method, self.plan
        drawn_by = (self.drawn_by,)
        return ClientBatches(self.clients.train, batch_size, seed, plan, method.local_steps, epoch, drawn_by)

    def join(self, module: nn.Module, data: Any) -> None:
        """Wait for the server's first message, and put its network into the module."""
        settings = self.settings
        self._flower = Flower(settings.programs, Path(self.config["paths"]["run_dir"]) / LOGS)
        tls = ["--root-certificates", settings.ca] if settings.ca else ["--insecure"]
        port = str(free_port())
        patience = ["--max-wait-time", str(RECONNECT_S)]  # so that it ends even where this process was killed
        self._flower.start("flower-supernode", *tls, *patience, "--superlink", settings.address, "--port", port)
        print(f"Waiting for the server at {settings.address}", flush=True)
        head, network = self.message()
        try:
            if head["say"] != "join":
                raise GraftError(f"The server at {settings.address} says {head['say']} before anything else.")
            check_agreement(head, self.config, data)
            check_network(network, {k: v for k, v in tensors_of(module).items() if k.startswith(PARTS)})
        except GraftError as error:
            self.answer({"error": str(error)}, {})
            raise
        put(module, network)
        cast(Any, module).tasks["target"].load_state_dict(head["task"])
        known = {"name": self.clients.names[0], "number": self.settings.number or 0}
        if self.method.partition != "own":
            known["name"] = str(known["number"])
        self.answer({**known, "samples": self.sizes[0], "steps": self.plan.steps[0]}, {})
        print(f"The server has {known['name']} among its clients", flush=True)

    def message(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The server's next message; GraftError where it has stopped, or says nothing for too long."""
        assert self._flower is not None
        if self._last is not None:
            found, self._last = self._last, None
            return found
        self._connection = self._flower.accepted(self.settings.wait_s, f"The server at {self.settings.address}")
        head, tensors = frames.read(self._connection)
        if head["say"] == "stop":
            self.answer({}, {})
            raise GraftError(f"The server at {self.settings.address}: {head['why']}.")
        return head, tensors

    def keep(self, message: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
        """Leave a message for whoever asks next."""
        self._last = message

    def answer(self, head: Mapping[str, Any], message: Message) -> None:
        """Answer the message that came last."""
        assert self._connection is not None
        frames.write(self._connection, head, message)
        self._connection.close()
        self._connection, self._answered = None, time.monotonic()

    def outcome(self, module: nn.Module) -> dict[str, Any] | None:
        """What the server chose, by its own validation; its network is in the module then."""
        head, network = self.message()
        while head["say"] != "finish":  # it asks again for a round that this client has ended with
            self.answer({"error": f"{head['say']} after the last round"}, {})
            head, network = self.message()
        put(module, network)
        self.answer({}, {})
        return head["selected"]

    def close(self, why: str = "") -> None:
        """End Flower, once the last answer is with the server; a message that still waits is answered by the reason."""
        if self._flower is None:
            return
        if self._connection is not None:
            self.answer({"error": why or "the client has stopped"}, {})
        time.sleep(max(0.0, self._answered + LAST_WORD_S - time.monotonic()))
        self._flower.stop()
        self._flower = None
