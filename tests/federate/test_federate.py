"""Server and clients of a federation as Flower sees them: here its part is done by the app's own code, in threads."""

import importlib.util
import sys
import threading
from multiprocessing.connection import Client, Pipe
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from test_config import problems

from graft.cli.job import execute
from graft.errors import GraftError
from graft.federate import client, flower, frames, server
from graft.runs.checkpoints import load
from tests.small_run import config_in, train_in

TINY = [
    *("data=table", "data/domain@data.target=wine", "backbone=mlp", "backbone.width=16", "strategy=scratch"),
    *("optimizer=sgd", "optimizer.lr=0.05", "training.epochs=2", "trainer=cpu", "logger=csv", "training.threads=1"),
    *("data.batch_size=8", "data.eval_batch_size=512", "federated=fedavg", "federated.clients=2"),
    *("federated.partition=dirichlet_by_class", "federated.beta=1", "backbone.dropout=0"),
]


class App:
    """Flower's ClientApp and ServerApp: what is decorated stays as it is."""

    def train(self):
        return lambda function: function

    main = train


class Message:
    def __init__(self, content, to=None, kind=None, reply_to=None):
        self.content, self.to, self.error = content, to, None
        self.metadata = SimpleNamespace(reply_to_message_id=reply_to and id(reply_to))

    def has_error(self):
        return self.error is not None


def array(dtype, shape, stype, data):
    return SimpleNamespace(dtype=dtype, shape=shape, data=data)


@pytest.fixture
def relay(monkeypatch):
    """The app as it is, on stand-ins for what it takes from Flower."""
    app, types = ModuleType("flwr.app"), SimpleNamespace(TRAIN="train")
    records = {name: dict for name in ("ArrayRecord", "ConfigRecord", "RecordDict")}
    app.__dict__.update(records, Array=array, Message=Message, MessageType=types, Context=object)
    clientapp, serverapp = ModuleType("flwr.clientapp"), ModuleType("flwr.serverapp")
    clientapp.ClientApp = serverapp.ServerApp = App
    serverapp.Grid = object
    for module in (ModuleType("flwr"), app, clientapp, serverapp):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("relay", flower.APP / "relay.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "connect", lambda: module.here.connection())
    module.here = threading.local()
    return module


class Grid:
    """What hands messages to nodes: a thread for each, in which the client's app answers."""

    def __init__(self, relay):
        self.relay, self.nodes, self.replies, self.listens = relay, [], [], threading.Event()

    def get_node_ids(self):
        return range(len(self.nodes))

    def push_messages(self, messages):
        for message in messages:
            self.replies.append((message, None))  # keeps it, and with it its id
            threading.Thread(target=self._deliver, args=[message], daemon=True).start()
            yield id(message)

    def _deliver(self, message):
        self.relay.here.connection = self.nodes[message.to]
        try:
            reply = self.relay.answer(message, None)
        except Exception as error:
            reply = Message(None, reply_to=message)
            reply.error = SimpleNamespace(reason=repr(error), code=1)
        self.replies.append((message, reply))

    def pull_messages(self, wanted):
        found = [reply for message, reply in self.replies if reply and id(message) in wanted]
        self.replies = [(message, reply) for message, reply in self.replies if reply not in found or reply is None]
        return found


@pytest.fixture
def grid(relay, monkeypatch):
    grid = Grid(relay)

    def connection(self):  # as the environment of Flower's programs says, while they start
        address, key = self._listener.address, self._key
        return lambda: Client(address, authkey=key)

    def start(self, name, *arguments):
        if name == "flower-supernode":
            grid.nodes.append(connection(self))

    def submit(self, address, ca):
        grid.listens.set()
        here = connection(self)

        def app():
            relay.here.connection = here
            relay.main(grid, None)

        threading.Thread(target=app, daemon=True).start()

    monkeypatch.setattr(flower.Flower, "start", start)
    monkeypatch.setattr(flower.Flower, "submit", submit)
    monkeypatch.setattr(server, "wait_for_port", lambda *_: None)
    monkeypatch.setattr(server, "check_port", lambda *_: None)
    for module in (server, client):
        monkeypatch.setattr(module, "environment_of", lambda key, folder: Path("nowhere"))
    monkeypatch.setattr(client, "LAST_WORD_S", 0.0)
    monkeypatch.setattr(server, "GOODBYE_S", 5.0)
    return grid


@pytest.fixture
def together(tmp_path, grid):
    """Run a server here and clients in threads; what each of them ended with."""

    def together(*overrides, clients, server_only=(), base=TINY):
        found = {}

        def take_part(name, config):
            if name != "server":  # whose network is drawn by then: of one process, all draw from the same generator
                grid.listens.wait()
            try:
                found[name] = execute(config)
            except GraftError as error:
                found[name] = error

        threads = []
        for name, own in clients.items():
            config = config_in(tmp_path, *base, "federate=client", *overrides, *own, folder=name)
            threads.append(threading.Thread(target=take_part, args=[name, config]))
        config = config_in(tmp_path, *base, "federate=server", *overrides, *server_only, folder="server")
        for thread in threads:
            thread.start()
        take_part("server", config)
        for thread in threads:
            thread.join()
        return found

    return together


TWO = {"client0": ["federate.number=0"], "client1": ["federate.number=1"]}


def last(folder):
    return load(folder / "checkpoints" / "last.ckpt")["state_dict"]


def test_over_a_network_it_is_the_run_in_one_process_bit_for_bit(tmp_path, together):
    alone = train_in(tmp_path, *TINY, folder="alone")
    found = together(clients=TWO)
    for name, value in last(tmp_path / "alone").items():
        assert torch.equal(value, last(tmp_path / "server")[name]), name
    results = found["server"]
    assert results["metrics"] == alone["metrics"]
    assert results["federated"]["clients"] == alone["federated"]["clients"]
    assert results["federated"]["rounds"] == alone["federated"]["rounds"]
    sent = results["parameters"]["trainable"] * 4
    assert [row["bytes_up"] for row in found["client1"]["federated"]["rounds"]] == [sent] * 2
    for name in TWO:  # each has the network that the server chose
        assert found[name]["selection"]["epoch"] == results["selection"]["epoch"]
        assert found[name]["metrics"]["test/target/acc"] == alone["metrics"]["test/target/acc"]


OF_IMAGES = [
    *("data=glyphs_digits", "data/domain@data.target=image_arrays", "data.source=null", "data.labels_per_class=null"),
    *("data.image_size=16", "data.batch_size=8", "backbone=lenet", "backbone.dropout=0", "strategy=scratch"),
    *("optimizer=sgd", "training.epochs=1", "trainer=cpu", "logger=csv", "training.threads=1"),
    *("federated=fedavg", "federated.clients=2", "federated.partition=own"),
]


@pytest.mark.slow
def test_clients_of_own_data_have_names_and_a_share_of_the_mean_by_their_samples(tmp_path, together):
    random = np.random.default_rng(0)
    for name, number in {"common": 40, "many": 80, "few": 30}.items():
        images = random.integers(0, 255, (number, 12, 12), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(number) % 2)
    clients = {name: [f"federate.name={name}", f"data.target.file={tmp_path / name}.npz"] for name in ("many", "few")}
    common = [f"data.target.file={tmp_path / 'common.npz'}"]
    found = together(base=OF_IMAGES, server_only=common, clients=clients)
    rows = found["server"]["federated"]["clients"]
    assert [row["name"] for row in rows] == ["few", "many"]
    assert [row["train"] for row in rows] == [found[name]["labels"]["training"] for name in ("few", "many")]
    assert rows[0]["train"] < rows[1]["train"]
    assert found["server"]["labels"]["training"] == sum(row["train"] for row in rows)
    few, many = (last(tmp_path / name) for name in ("few", "many"))
    share = rows[0]["train"] / found["server"]["labels"]["training"]
    for name, value in last(tmp_path / "server").items():
        torch.testing.assert_close(value, share * few[name] + (1 - share) * many[name])


@pytest.mark.slow
def test_columns_that_each_machine_scales_by_its_own_rows_are_refused(together):
    fewer = ["federate.name=fewer", "data.target.val_fraction=0.4"]
    own = ["federated.partition=own", "federated.clients=1"]
    found = together(*own, server_only=["federate.wait_s=3"], clients={"a": fewer})
    assert "their columns differ" in str(found["a"])


@pytest.mark.slow
def test_what_a_client_sends_that_is_not_finite_is_left_out(monkeypatch, together):
    answer = client.ClientFederation.answer

    def broken(self, head, message):
        bad = self.settings.number == 1
        answer(self, head, {name: torch.full_like(one, torch.nan) if bad else one for name, one in message.items()})

    monkeypatch.setattr(client.ClientFederation, "answer", broken)
    found = together(clients=TWO)
    rounds = found["server"]["federated"]["rounds"]
    assert [(row["clients"], row["rejected"], row["dropped"]) for row in rounds] == [(1, [1], [])] * 2


@pytest.mark.slow
def test_a_round_goes_on_without_a_client_that_failed(monkeypatch, together):
    answer = client.ClientFederation.answer

    def failing(self, head, message):
        if self.settings.number == 1 and message:
            raise GraftError("the disk is full")
        answer(self, head, message)

    monkeypatch.setattr(client.ClientFederation, "answer", failing)
    found = together(clients=TWO)
    assert str(found["client1"]) == "the disk is full"
    assert [row["dropped"] for row in found["server"]["federated"]["rounds"]] == [[1], [1]]
    assert found["server"]["federated"]["clients"][1]["dropped"] == 2


@pytest.mark.slow
def test_a_client_of_another_configuration_is_told_and_the_server_waits_for_another(together):
    other = {"client0": ["federate.number=0", "optimizer.lr=0.1"]}
    found = together("federate.wait_s=60", server_only=["federate.wait_s=3"], clients=other)
    assert "optimizer.lr is 0.05 there and 0.1 here" in str(found["client0"])
    assert "federate.wait_s=3: 0 of 2 clients are there" in str(found["server"])


@pytest.mark.slow
def test_two_clients_of_one_number_are_one_too_many(together):
    both = {"client0": ["federate.number=0"], "client1": ["federate.number=0"]}
    found = together(server_only=["federate.wait_s=15"], clients=both)
    said = sorted(str(found[name]) for name in both)
    assert any("federate.number=0: another client has it" in one for one in said)
    assert any("1 of 2 clients are there" in one for one in said)  # the server told it why it stopped


def test_a_frame_is_what_was_sent_to_the_bit():
    sent = {
        "a": torch.tensor([[1.5, float("nan")], [-0.0, 2.0]]),
        "half": torch.arange(3, dtype=torch.bfloat16),
        "number": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(6.0).view(2, 3).T,
    }
    one, other = Pipe()
    frames.write(one, {"say": "round", "round": 3}, sent)
    head, found = frames.read(other)
    assert head == {"say": "round", "round": 3}
    assert found.keys() == sent.keys()
    for name, value in sent.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def test_without_flower_the_message_says_how_to_make_its_environment(tmp_path):
    with pytest.raises(GraftError, match=r"flower-superlink, flower-supernode, flwr not found in .*make flower"):
        flower.environment_of("federate.flower", str(tmp_path))


NETWORK = ["federated=fedavg", "federated.partition=own"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (NETWORK, "use graft federate"),
        (["federate=server"], "`federate=server` with `federated=none`"),
        (["federate=server", "federated=fedbn"], "cannot validate what stays with clients"),
        (["federate=server", "federated=fedavg", "federated.drop_out=0.1"], "machines fail by themselves"),
        (["federate=server", *NETWORK, "federate.host=0.0.0.0"], "weights would be in the clear"),
        (["federate=server", *NETWORK, "federate.key=key.pem"], "give all three"),
        (["federate=client", *NETWORK, "federate.address=hospital.org:9092"], "come through ssh -L"),
        (["federate=client", *NETWORK, "federate.number=1"], "all are its own"),
        (["federate=client", "federated=fedavg"], "say whose share it has"),
        (["federate=client", *NETWORK, "resume=true"], "clients join anew"),
    ],
)
def test_what_cannot_go_over_a_network_is_refused(overrides, message):
    assert any(message in line for line in problems("experiment=federated_digits", "federated=none", *overrides))


def test_what_can_is_not():
    assert not problems("experiment=federated_digits", *NETWORK, "federate=server")
    assert not problems("experiment=federated_digits", *NETWORK, "federate=client", "federate.name=a")
