"""A socket on this machine alone, and the server behind it."""

import socket

import uvicorn
from starlette.types import ASGIApp

from graft.errors import GraftError
from graft.serve.guard import HOST

FINISHING = 5  # seconds for answers that are under way when the server is stopped


def listen(port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. GraftError where the port is taken or not allowed."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just stopped is no obstacle
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise GraftError(
            f"port={port}: it cannot be listened on ({error.strerror}). Take another port, or a free one: "
            "graft serve run=<folder> port=0"
        ) from None
    return listener


def server(app: ASGIApp) -> uvicorn.Server:
    """A server whose `run` answers until Ctrl-C or SIGTERM, which it raises again at its end; it logs no request."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=FINISHING,
        )
    )
