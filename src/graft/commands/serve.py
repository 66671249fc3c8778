"""A page on this machine that predicts with a run's model: `graft serve run=<folder> [port=8000]`."""

import signal
import sys
from collections.abc import Sequence

from graft import signals
from graft.cli.words import names_in, pairs
from graft.errors import GraftError
from graft.packages import versions_of

USAGE = """graft serve run=<folder> [port=8000] [limit_mb=10] [allow=[packages]]
  run        a run's folder, its model folder, or a sweep's folder (its best job)
  port       where the page is: http://127.0.0.1:8000; 0 takes a free one
  host       127.0.0.1 alone: nobody else can reach the page
  limit_mb   megabytes of a file that are taken
  allow      [packages] whose code the model may run: only if you trust it"""
KEYS = ("run", "port", "host", "limit_mb", "allow")
NEEDED = ("starlette", "uvicorn", "python-multipart")
HOSTS = ("127.0.0.1", "localhost")
PORT, LARGEST_PORT = 8000, 65535
LIMIT_MB, LARGEST_MB = 10, 1000


def main(arguments: list[str]) -> int:
    """Load the model once and answer until Ctrl-C."""
    settings = settings_of(arguments)
    if settings is None:
        print(USAGE, file=sys.stderr)
        return 2
    port = number_of("port", settings.get("port", str(PORT)), 0, LARGEST_PORT)
    limit_mb = number_of("limit_mb", settings.get("limit_mb", str(LIMIT_MB)), 1, LARGEST_MB)
    if (host := settings.get("host", HOSTS[0])) not in HOSTS:
        raise GraftError(
            f"host={host}: the page is at {HOSTS[0]} alone, because it asks nobody who they are. To see it from "
            f"another machine, there: ssh -L {port}:{HOSTS[0]}:{port} <this machine>"
        )
    if missing := [name for name in NEEDED if not versions_of([name])]:
        raise GraftError(f"graft serve needs {', '.join(missing)}. Install them: pip install '.[serve]'")
    allow = names_in(settings.get("allow", ""))

    from graft.serve.server import listen

    try:
        with signals.scheduler_signals(), listen(port) as listener:
            from graft import load_run  # torch
            from graft.serve.app import app
            from graft.serve.page import WHAT, what_of
            from graft.serve.server import server

            model = load_run(settings["run"], allow=allow)
            modality = model.description.modality
            if modality not in WHAT:
                raise GraftError(
                    f"run={settings['run']}: its modality is {modality}, and the page takes {', '.join(WHAT)}. "
                    f"On the command line: graft predict run={settings['run']} input=<file>"
                )
            where = f"http://{HOSTS[0]}:{listener.getsockname()[1]}"
            print(f"{model.description.name}: {where} takes {what_of(model.modalities)}. Ctrl-C ends it.", flush=True)
            server(app(model, limit_mb)).run(sockets=[listener])
    except KeyboardInterrupt as error:
        signum = error.signum if isinstance(error, signals.Stopped) else signal.SIGINT
        print(f"{signals.how_stopped(signum)}.", file=sys.stderr)
        return signals.exit_code(signum)
    return 0


def settings_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """The keys of the command line, None where run is missing. Raises GraftError for an unknown one."""
    settings = dict(pairs("serve", arguments, KEYS, USAGE))
    return settings if "run" in settings else None


def number_of(key: str, value: str, low: int, high: int) -> int:
    """A whole number in a range. Raises GraftError for anything else."""
    if not value.isdecimal() or not low <= int(value) <= high:
        raise GraftError(f"{key}={value}: a whole number from {low} to {high}.")
    return int(value)
