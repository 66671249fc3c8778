"""`graft <verb>` and `python -m graft <verb>`, and what train.py does.

A verb is a file in graft/commands/. Those that compose a config (train, tune, soup) take Hydra's overrides; the others
have a `main(arguments)` of their own. Nothing heavy is imported before it is clear what is asked for.
"""

import ast
import importlib
import sys
from pathlib import Path

from graft.cli import help as config_help
from graft.errors import GraftError
from graft.locations import CONF

COMMANDS = Path(__file__).parents[1] / "commands"
USER_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Do what a command line asks for and return the exit code; overrides without a verb are for `train`."""
    words = sys.argv[1:] if arguments is None else arguments
    verb, rest = (words[0], words[1:]) if words and is_word(words[0]) else ("train" if words else "", words)
    if not verb or words[0] in ("--help", "-h"):
        print(usage())
        return 0
    if verb not in verbs():
        print(f"graft {verb}: there is no such verb. Verbs: {', '.join(verbs())}.", file=sys.stderr)
        return USER_ERROR
    if verb in ("train", "tune", "soup"):
        if verb == "soup" and not any(is_word(word) or word.startswith(("soup=", "-")) for word in rest):
            print("graft soup <folder of a finished sweep>", file=sys.stderr)
            return USER_ERROR
        return compose(overrides_of(verb, rest))
    if "--help" in rest or "-h" in rest:
        print(verbs()[verb])
        return 0
    try:
        return importlib.import_module(f"graft.commands.{verb}").main(rest)
    except GraftError as error:
        print(error, file=sys.stderr)
        return USER_ERROR


def compose(overrides: list[str]) -> int:
    """Answer --help from the config files, or give the overrides to Hydra; returns the exit code."""
    if config_help.asks_for_help(overrides):
        return config_help.show_help(overrides, CONF)

    import hydra

    from graft.cli.hydra_versions import MAIN
    from graft.cli.job import run_job
    from graft.cli.launch import launch

    sys.argv[1:] = overrides
    return launch(hydra.main(**MAIN, config_path=str(CONF), config_name="train")(run_job), CONF)


def overrides_of(verb: str, words: list[str]) -> list[str]:
    """What a verb is as Hydra's overrides: `tune` sets a key, `soup` takes a folder first."""
    if verb == "tune":
        return [*words, "tune=lr"]
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
    return "\n".join(["Graft: what can be done.", "", *lines, "", "`graft train --help` lists experiments and groups."])
