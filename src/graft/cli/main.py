"""`graft <verb>` and `python -m graft <verb>`, and what train.py does.

A verb is a file in graft/commands/. Those that compose a config (train, tune, soup, federate) take Hydra's overrides;
the others have a `main(arguments)` of their own. Nothing heavy is imported before it is clear what is asked for.
"""

import ast
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from graft.cli import arguments, folds, race_words
from graft.cli import help as config_help
from graft.cli.launch import known_names, say
from graft.errors import GraftError, LaunchRefused
from graft.locations import CONF

COMMANDS = Path(__file__).parents[1] / "commands"
USER_ERROR = 2
WHERE_NEXT = "`graft train` shows where to start, `graft train --help` lists experiments and groups."


def main(typed: list[str] | None = None) -> int:
    """Do what a command line asks for and return the exit code; overrides without a verb are for `train`."""
    words = sys.argv[1:] if typed is None else typed
    verb, rest = (words[0], words[1:]) if words and is_word(words[0]) else ("train" if words else "", words)
    if not verb or words[0] in ("--help", "-h"):
        return printed(lambda: print(usage()))
    if verb not in verbs():
        print(f"graft {verb}: there is no such verb. Verbs: {', '.join(verbs())}.", file=sys.stderr)
        return USER_ERROR
    if verb in ("train", "tune", "soup", "race", "federate"):
        if verb == "soup" and not any(is_word(word) or word.startswith(("soup=", "-")) for word in rest):
            print("graft soup <folder of a finished sweep>", file=sys.stderr)
            return USER_ERROR
        if verb == "federate" and (rest[:1] not in (["server"], ["client"]) or {"-m", "--multirun"} & {*rest}):
            print("graft federate server|client experiment=... federated=fedavg [federate.port=9092]", file=sys.stderr)
            return USER_ERROR
        if verb == "race" and not rest:
            print("graft race experiment=... [budget=0.4 | budget_s=600] [space=<yaml>]", file=sys.stderr)
            return USER_ERROR
        try:
            return compose(overrides_of(verb, rest))
        except GraftError as error:
            say(str(error))
            return USER_ERROR
    if "--help" in rest or "-h" in rest:
        print(verbs()[verb])
        return 0
    try:
        return printed(lambda: importlib.import_module(f"graft.commands.{verb}").main(rest))
    except GraftError as error:
        print(error, file=sys.stderr)
        return USER_ERROR


def printed(show: Callable[[], int | None]) -> int:
    """The exit code of what only prints (None is 0); a reader that has seen enough, such as `| head`, is no error."""
    try:
        code = show()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 0
    return code or 0


def compose(overrides: list[str]) -> int:
    """Show where to start, answer --help from the config files, or give the overrides to Hydra; the exit code."""
    if not overrides:
        return printed(config_help.show_start)
    if config_help.asks_for_help(overrides):
        return printed(lambda: config_help.show_help(overrides, CONF))

    try:
        overrides = arguments.typed(overrides, lambda: known_names(CONF))
    except GraftError as error:
        say(str(error))
        return USER_ERROR

    import hydra

    from graft.cli.hydra_versions import MAIN
    from graft.cli.job import run_job
    from graft.cli.launch import launch

    def app() -> None:
        try:
            sys.argv[1:] = folds.planned(sys.argv[1:], config_help.config_folders(sys.argv[1:], CONF))
        except GraftError as error:
            raise LaunchRefused(str(error)) from None
        hydra.main(**MAIN, config_path=str(CONF), config_name="train")(run_job)()

    sys.argv[1:] = overrides
    return launch(app, CONF)


def overrides_of(verb: str, words: list[str]) -> list[str]:
    """What a verb is as Hydra's overrides.

    `tune` sets a key, `federate` takes its side first, `soup` a folder, and `race` is a sweep.
    """
    if verb == "tune":
        return [*words, "tune=lr"]
    if verb == "federate":
        return [f"federate={words[0]}", *words[1:]]
    if verb == "race" and not config_help.asks_for_help(words):
        return race_words.as_race(words)
    if verb == "soup" and words and is_word(words[0]):
        return [f"soup={words[0]}", *words[1:]]
    return words


def is_word(text: str) -> bool:
    """Whether an argument is neither a flag nor an override."""
    return not text.startswith(("-", "+", "~")) and "=" not in text


def verbs() -> dict[str, str]:
    """Every verb with the first line that its file says of itself."""
    files = sorted(path for path in COMMANDS.glob("*.py") if path.stem != "__init__")
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for path in files}


def usage() -> str:
    """All verbs, a line each."""
    width = max(map(len, verbs()))
    lines = [f"  graft {verb:{width}}  {line}" for verb, line in verbs().items()]
    return "\n".join(
        [
            "Graft: what can be done.",
            "",
            *lines,
            "",
            WHERE_NEXT,
        ]
    )
