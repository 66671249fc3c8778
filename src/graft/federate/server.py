"""The server of a federation over a network: it waits for clients, asks them round by round, and has no samples."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn

from graft.config.types import Positive
from graft.data.module import TransferDataModule
from graft.data.samples import DomainData
from graft.data.sampling import TrainBatches
from graft.errors import GraftError
from graft.federate import LOOPBACK, frames
from graft.federate.agreement import agreed, state_of
from graft.federate.flower import LOGS, START_S, Flower, check_port, environment_of, file_of, wait_for_port
from graft.federate.rounds import ServerRounds
from graft.federated.base import Federated
from graft.federated.clients import NOBODY, Clients, divide
from graft.federated.federation import Federation
from graft.federated.messages import PARTS, Message, tensors_of
from graft.federated.plan import Plan
from graft.module import TransferModule

Port = Annotated[int, Interval(ge=1, le=65535)]
GOODBYE_S = 120.0  # that clients have to say that they know how it ended


class Server:
    """Where the server listens, and how long it waits."""

    role = "server"

    def __init__(
        self,
        host: str = LOOPBACK[0],
        port: Port = 9092,
        wait_s: Positive = 600.0,
        round_s: Positive = 3600.0,
        certificate: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        flower: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.wait_s = wait_s
        self.round_s = round_s
        self.tls = {
            "--ssl-certfile": file_of("federate.certificate", certificate),
            "--ssl-keyfile": file_of("federate.key", key),
            "--ssl-ca-certfile": file_of("federate.ca", ca),
        }
        self.programs = environment_of("federate.flower", flower)

    def federation(
        self, method: Federated, target: DomainData, batch_size: int, config: Mapping[str, Any]
    ) -> "ServerFederation":
        """A federation whose clients are elsewhere."""
        if method.partition != "own":
            clients = divide(method, target)
        else:
            numbers = tuple(str(number) for number in range(method.clients or 1))
            nobody = {name: torch.full((len(getattr(target, name)),), NOBODY) for name in ("val", "test")}
            clients = Clients(numbers, (torch.empty(0, dtype=torch.int64),) * len(numbers), nobody)
        return ServerFederation(self, method, clients, batch_size, config)


class ServerFederation(Federation):
    """What the server knows of clients that are elsewhere; an epoch of its Trainer is one step, which a round takes."""

    trains_elsewhere = True

    def __init__(
        self, settings: Server, method: Federated, clients: Clients, batch_size: int, config: Mapping[str, Any]
    ) -> None:
        super().__init__(method, clients, batch_size, config["seed"])
        self.settings, self.config = settings, config
        self.nodes: list[str] = []  # of Flower, by client
        self._flower: Flower | None = None
        self._connection: Connection | None = None
        self._pretrained: Message = {}  # the network before the strategy changed it
        self._changed: set[str] = set()  # names of what clients do not have from then

    def make_rounds(self) -> ServerRounds:
        """What takes the step of an epoch."""
        return ServerRounds(self)

    def train_batches(self, batch_size: int, seed: tuple[object, ...], epoch: int) -> TrainBatches:
        """One batch an epoch, at whose end the round is done; its sample is not looked at."""
        return TrainBatches(1, 1, seed)

    def samples(self, batch_size: int) -> int:
        """None of its own."""
        return 0

    def total_steps(self, rounds: int) -> int:
        """One a round."""
        return rounds

    @property
    def logs(self) -> Path:
        """Where Flower writes."""
        return Path(self.config["paths"]["run_dir"]) / LOGS

    # Clients

    def see_network(self, module: nn.Module) -> None:
        """Keep what clients get when they come."""
        self._pretrained = network_of(module)

    def begin(self, module: TransferModule, data: TransferDataModule) -> None:
        """Start Flower and wait until every client is there and has the network."""
        settings, wanted = self.settings, len(self.clients)
        check_port(settings.host, settings.port)
        self._flower = flower = Flower(settings.programs, self.logs)
        tls = [word for flag, file in settings.tls.items() if file for word in (flag, file)] or ["--insecure"]
        address = f"{settings.host}:{settings.port}"
        where = ["--host", settings.host, "--port", str(settings.port)]
        flower.start("flower-superlink", *where, *tls, "--disable-runtime-dependency-installation")
        wait_for_port(flower, settings.host, settings.port)
        flower.submit(address, settings.tls["--ssl-ca-certfile"])
        self._connection = flower.accepted(START_S, "Flower's app on this machine")
        print(f"At {address}, waiting for {wanted} clients", flush=True)
        now = network_of(module)
        old = self._pretrained
        self._changed = {name for name, value in now.items() if name not in old or not same(old[name], value)}
        head = {"say": "join", **agreed(self.config, data), **state_of(module.tasks["target"])}
        joined: dict[str, dict[str, Any]] = {}
        refused: set[str] = set()
        end = time.monotonic() + settings.wait_s
        while len(joined) < wanted:
            flower.check()
            new = [node for node in self._online() if node not in joined and node not in refused]
            answers = self._ask(new, head, old, settings.wait_s) if new else {}
            for node, (found, _) in answers.items():
                if "error" in found:
                    print(f"A client cannot join: {found['error']}", flush=True)
                    refused.add(node)
                elif why := self._unwanted(found, [*joined.values()]):
                    self._ask([node], {"say": "stop", "why": why}, {}, GOODBYE_S)
                    refused.add(node)
                else:
                    joined[node] = found
                    print(f"Client {found['name']} is there ({len(joined)} of {wanted})", flush=True)
            if time.monotonic() > end:
                raise GraftError(
                    f"federate.wait_s={settings.wait_s:g}: {len(joined)} of {wanted} clients are there. Start the "
                    "others, set federated.clients, or wait longer."
                )
            time.sleep(1.0)
        self._know([*joined.items()])

    def _unwanted(self, found: Mapping[str, Any], there: list[dict[str, Any]]) -> str:
        """Why a client cannot take part; empty where it can."""
        key = "name" if self.method.partition == "own" else "number"
        if len(there) == len(self.clients):
            return f"there are {len(there)} clients already"
        if self.method.partition != "own" and not 0 <= found["number"] < len(self.clients):
            return f"federate.number={found['number']}: there are shares 0 to {len(self.clients) - 1}"
        if any(one[key] == found[key] for one in there):
            return f"federate.{key}={found[key]}: another client has it; give each one of its own"
        return ""

    def _know(self, joined: list[tuple[str, dict[str, Any]]]) -> None:
        """Number the clients, the same way whoever came first, and plan with the steps that each takes."""
        joined.sort(key=lambda one: one[1]["name"] if self.method.partition == "own" else one[1]["number"])
        self.nodes = [node for node, _ in joined]
        self.sizes = [found["samples"] for _, found in joined]
        self.clients = replace(self.clients, names=tuple(found["name"] for _, found in joined))
        self.plan = Plan([found["steps"] for _, found in joined], self.method.participation, 0.0, self.seed)

    def ask(self, number: int, clients: list[int], message: Message) -> dict[int, dict[str, Tensor]]:
        """What clients that answer in time answer to a round's message, in the order of their numbers."""
        head = {"say": "round", "round": number, "longest": max(self.plan.steps)}
        nodes = {self.nodes[client]: client for client in clients}
        answers = self._ask([*nodes], head, message, self.settings.round_s)
        good = {nodes[node]: tensors for node, (found, tensors) in answers.items() if "error" not in found}
        for node, (found, _) in answers.items():
            if "error" in found:
                print(f"Client {self.name(nodes[node])} failed in round {number + 1}: {found['error']}", flush=True)
        return {client: good[client] for client in sorted(good)}

    def changed_in(self, module: nn.Module, names: list[str]) -> dict[str, Tensor]:
        """What clients do not have since they joined, and what a round changes now, by name: who missed one too."""
        self._changed |= {*names}
        network = network_of(module)
        return {name: network[name] for name in sorted(self._changed)}

    def tell(self, selected: Mapping[str, Any], module: nn.Module) -> None:
        """Let clients have the network of the round that was chosen."""
        head = {"say": "finish", "selected": {name: selected[name] for name in ("epoch", "metrics", "rule")}}
        self._ask(self.nodes, head, self.changed_in(module, []), GOODBYE_S)
        self._end()

    def close(self, why: str = "the server has stopped") -> None:
        """End Flower; clients that still wait are told why."""
        if self._connection is not None and self._flower is not None:
            with suppress(GraftError, OSError, EOFError):  # where Flower has ended before
                self._ask(self.nodes or self._online(), {"say": "stop", "why": why}, {}, GOODBYE_S)
        self._end()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._flower is not None:
            self._flower.stop()
        self._connection, self._flower = None, None

    def _online(self) -> list[str]:
        return self._exchange({"do": "nodes"}, {})[0]["nodes"]

    def _exchange(self, head: Mapping[str, Any], message: Message) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """One answer of the app on this machine."""
        assert self._connection is not None
        frames.write(self._connection, head, message)
        return self._read()

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        assert self._connection is not None
        assert self._flower is not None
        try:
            while not self._connection.poll(1.0):
                self._flower.check()
            return frames.read(self._connection)
        except (EOFError, OSError) as error:
            raise GraftError(f"Flower's app has ended. What it wrote: {self._flower.logs}") from error

    def _ask(
        self, nodes: list[str], head: Mapping[str, Any], message: Message, seconds: float
    ) -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
        """Answers by node, of those that give one in time."""
        found, tensors = self._exchange({"do": "ask", "to": nodes, "head": head, "timeout_s": seconds}, message)
        answers = {}
        while "missing" not in found:
            answers[found["node"]] = (found["head"], tensors)
            found, tensors = self._read()
        return answers


def network_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors of backbone and heads, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in tensors_of(module).items()
        if name.startswith(PARTS)
    }


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same bits, or the same numbers."""
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
