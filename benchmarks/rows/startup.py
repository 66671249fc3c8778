"""How long one waits for help, and for the news that a key is wrong."""

import subprocess

from benchmarks import commands
from benchmarks.measure import seconds
from benchmarks.row import Bar, Measured, Row, Settings
from graft.cli.job import quoted


def answer_time(settings: Settings, *arguments: str, code: int) -> Measured:
    """Seconds until train.py has answered, in a process of its own each time."""
    line = [commands.command()[0], str(commands.ROOT / "train.py"), *arguments]

    def ask() -> None:
        outcome = subprocess.run(
            line, env=commands.environment(), cwd=settings.folder, capture_output=True, check=False
        )
        if outcome.returncode != code:
            raise commands.CommandError(f"expected exit code {code}, got {outcome.returncode}: {outcome.stderr[-500:]}")

    ask()  # the first one may have to compile the sources
    return Measured([seconds(ask) for _ in range(settings.repeats)])


def show_help(settings: Settings) -> Measured:
    """Seconds of --help."""
    return answer_time(settings, "--help", code=0)


def wrong_key(settings: Settings) -> Measured:
    """Seconds until an error in one of Graft's own keys is told; no folder may stay behind."""
    folder = settings.folder / "run"
    return answer_time(settings, "objective.alpha=2", f"hydra.run.dir={quoted(folder)}", code=2)


ROWS = [
    Row("help", "train.py --help", "", Bar("<=", 0.30), show_help, repeats=10, unit="s"),
    Row("wrong_key", "an error in one of Graft's keys", "", Bar("<=", 1.00), wrong_key, repeats=10, unit="s"),
]
