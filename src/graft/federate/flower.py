"""Flower's programs on this machine, in an environment of their own, and the connection between them and Graft."""

import atexit
import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from graft.errors import GraftError
from graft.federate import LOOPBACK
from graft.locations import ROOT

APP = Path(__file__).parent / "app"
FOLDER = "GRAFT_FLOWER"
DEFAULT = ROOT / ".cache" / "flower"
PROGRAMS = ("flower-superlink", "flower-supernode", "flwr")
LOGS = "flower"  # folder in the run's, of what Flower's programs write
START_S = 120  # that Flower's programs have to start
LINES = 15  # of a program's log that an error shows


def environment_of(key: str, folder: str | None) -> Path:
    """The folder of Flower's programs; GraftError, with how to make the environment, where they are not there."""
    root = Path(folder or os.environ.get(FOLDER) or DEFAULT).expanduser()
    programs = root / ("Scripts" if os.name == "nt" else "bin")
    if missing := [name for name in PROGRAMS if shutil.which(name, path=str(programs)) is None]:
        raise GraftError(
            f"{key}={folder}: {', '.join(missing)} not found in {programs}. Flower needs other versions of packages "
            "than Graft, so that it has an environment of its own, with Python 3.11 or newer: make flower. Without "
            f"make: python -m venv {DEFAULT} and {programs / 'pip'} install 'flwr>=1.42,<2'; in another folder: set "
            f"{FOLDER} or {key}."
        )
    return programs


class Flower:
    """Programs of Flower that end with this process, and a listener for the app that Flower runs (app/relay.py)."""

    def __init__(self, programs: Path, logs: Path) -> None:
        self.programs, self.logs = programs, logs
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.home = Path(tempfile.mkdtemp(prefix="graft-flower-"))  # readable by this user alone
        self._key = secrets.token_bytes(32)
        self._listener = Listener(None, authkey=self._key)
        self._accepted: queue.Queue[Connection] = queue.Queue()
        self._stopped = False
        threading.Thread(target=self._accept, daemon=True).start()
        atexit.register(self.stop)

    def _accept(self) -> None:
        """Connections with the key, until Flower is stopped: whoever comes then finds the connection closed."""
        while not self._stopped:
            try:
                connection = self._listener.accept()
            except AuthenticationError:
                continue
            except (OSError, EOFError):
                return
            if self._stopped:
                connection.close()
            else:
                self._accepted.put(connection)

    @property
    def _environment(self) -> Mapping[str, str]:
        """What programs of Flower see: none of Graft's packages, no reports to Flower's makers, and where Graft is."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        address = self._listener.address
        return kept | {
            "PATH": os.pathsep.join([str(self.programs), os.environ.get("PATH", "")]),
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "GRAFT_RELAY_ADDRESS": address if isinstance(address, str) else str(address),
            "GRAFT_RELAY_KEY": self._key.hex(),
        }

    def start(self, name: str, *arguments: str) -> None:
        """Start a program, which writes to a file of the run's folder."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.programs / name), *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is Graft's to handle
            )
        self.running.append((name, process))

    def submit(self, address: str, ca: str | None) -> None:
        """Start the app on a server that runs on this machine; GraftError where it refuses."""
        tls = f'root-certificates = "{Path(ca).absolute()}"' if ca else "insecure = true"
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "graft"\n\n[superlink.graft]\naddress = "{address}"\n{tls}\n'
        )
        command = [str(self.programs / "flwr"), "run", str(APP), "graft"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise GraftError(f"Flower did not start its app:\n{(done.stdout + done.stderr).strip()}")

    def accepted(self, seconds: float, what: str) -> Connection:
        """The app's next connection; GraftError where Flower has ended, or nothing comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                return self._accepted.get(timeout=1.0)
            except queue.Empty:
                self.check()
        raise GraftError(f"{what}: nothing came for {seconds:g} seconds. What Flower wrote: {self.logs}")

    def check(self) -> None:
        """GraftError where one of the programs has ended."""
        for name, process in self.running:
            if process.poll() is not None:
                log = (self.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
                said = "\n".join(log[-LINES:])
                raise GraftError(
                    f"{name} has ended (exit code {process.returncode}). The end of what it wrote:\n{said}"
                )

    def stop(self) -> None:
        """End every program, and leave nothing behind but what they wrote into the run's folder."""
        atexit.unregister(self.stop)
        self._stopped = True
        with suppress(OSError, EOFError, AuthenticationError):  # wakes the thread that accepts
            Client(self._listener.address, authkey=self._key).close()
        while not self._accepted.empty():
            self._accepted.get_nowait().close()
        for _, process in reversed(self.running):
            process.terminate()
        for _, process in self.running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
        self.running = []
        self._listener.close()
        shutil.rmtree(self.home, ignore_errors=True)


def wait_for_port(flower: Flower, host: str, port: int) -> None:
    """Wait until something listens there; GraftError where Flower ends before."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        flower.check()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.settimeout(1.0)
            if one.connect_ex((host, port)) == 0:
                return
        time.sleep(0.3)
    raise GraftError(f"Flower does not listen at {host}:{port} after {START_S} seconds; what it wrote: {flower.logs}")


def check_port(host: str, port: int) -> None:
    """GraftError where another program has the port, or this machine has no such address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        if sys.platform != "win32":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            raise GraftError(f"federate.host={host} federate.port={port}: {error.strerror}. Take another.") from None


def free_port() -> int:
    """A port of this machine that nothing listens at now."""
    with socket.socket() as one:
        one.bind((LOOPBACK[0], 0))
        return one.getsockname()[1]


def file_of(key: str, value: str | None) -> str | None:
    """The absolute path of a file that a key names; GraftError where there is none."""
    if value is None:
        return None
    if not Path(value).expanduser().is_file():
        raise GraftError(f"{key}={value}: there is no such file.")
    return str(Path(value).expanduser().absolute())
