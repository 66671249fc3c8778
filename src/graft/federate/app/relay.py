"""What Flower runs beside Graft, in Flower's environment: it hands messages on, and knows nothing of networks.

Graft listens on this machine alone and has put the address and the key into the environment. A message is a head, which
is JSON, and the bytes of its tensors in the head's order.
"""

import json
import os
import time
from multiprocessing.connection import Client, Connection

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

ADDRESS, KEY = "GRAFT_RELAY_ADDRESS", "GRAFT_RELAY_KEY"
POLL_S = 1.0
client = ClientApp()
server = ServerApp()


def connect() -> Connection:
    """A connection to Graft on this machine."""
    return Client(os.environ[ADDRESS], authkey=bytes.fromhex(os.environ[KEY]))


def read(connection: Connection) -> tuple[dict, ArrayRecord]:
    """A head, and the tensors that it names."""
    head = json.loads(connection.recv_bytes())
    arrays = {
        name: Array(dtype, tuple(shape), "raw", connection.recv_bytes()) for name, dtype, shape in head["tensors"]
    }
    return head, ArrayRecord(arrays)


def write(connection: Connection, head: dict, arrays: ArrayRecord) -> None:
    """The same, the other way."""
    named = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    connection.send_bytes(json.dumps({**head, "tensors": named}).encode())
    for array in arrays.values():
        connection.send_bytes(array.data)


def content(head: dict, arrays: ArrayRecord) -> RecordDict:
    """A message as Flower sends it."""
    return RecordDict({"head": ConfigRecord({"json": json.dumps(head)}), "tensors": arrays})


def parts(message: Message) -> tuple[dict, ArrayRecord]:
    """Head and tensors of a message of Flower; of one that reports an error, a head alone."""
    if message.has_error():
        return {"error": message.error.reason or f"code {message.error.code}"}, ArrayRecord()
    return json.loads(message.content["head"]["json"]), message.content["tensors"]


@client.train()
def answer(message: Message, context: Context) -> Message:
    """What this machine's Graft says to a message of the server's."""
    with connect() as connection:
        write(connection, *parts(message))
        return Message(content(*read(connection)), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Do what Graft asks for, until it closes the connection: name the nodes, or ask some of them."""
    with connect() as connection:
        while True:
            try:
                head, arrays = read(connection)
            except EOFError:
                return
            if head["do"] == "nodes":
                write(connection, {"nodes": [str(node) for node in grid.get_node_ids()]}, ArrayRecord())
            else:
                ask(grid, connection, head, arrays)


def ask(grid: Grid, connection: Connection, head: dict, arrays: ArrayRecord) -> None:
    """Send one message to several nodes; hand on each answer as it comes, then who did not answer in time."""
    waited, started = {}, time.monotonic()
    for node in head["to"]:
        message = Message(content(head["head"], arrays), int(node), MessageType.TRAIN)
        waited[next(iter(grid.push_messages([message])))] = node
    while waited and time.monotonic() - started < head["timeout_s"]:
        for reply in grid.pull_messages([*waited]):
            found, tensors = parts(reply)
            write(connection, {"node": waited.pop(reply.metadata.reply_to_message_id), "head": found}, tensors)
        if waited:
            time.sleep(POLL_S)
    write(connection, {"missing": list(waited.values())}, ArrayRecord())
