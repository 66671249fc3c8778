"""What people type before Hydra parses it: paths are quoted for them, and flags of other programs are explained."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graft.cli.comparison import compared
from graft.cli.evaluation import written_out
from graft.cli.program import program
from graft.cli.race_words import with_auto
from graft.cli.words import names_in
from graft.config.compose import MANY
from graft.errors import GraftError, in_quotes
from graft.files import user_path
from graft.locations import CONF

# The last names of the keys that hold a path.
PATHS = (
    *("root", "file", "val_file", "test_file", "folder", "weights", "resume", "soup"),
    *("train_shards", "val_shards", "test_shards"),
    *("logs_dir", "cache_dir", "data_dir", "run_dir", "dir"),
)
MULTIRUN = ("-m", "--multirun")
MOST_REPEATS = 1000
REPEATED = {"seeds": "seed", "splits": "data.split_seed"}  # `seeds=5` is `seed=0,1,2,3,4`, as a sweep
OPEN = ("optimizer.options", "strategy.options", "hydra.launcher.additional_parameters")  # any key of another package
PLAIN = re.compile(r"[\w./+%@:$?|-]*")  # what Hydra takes without quotes, and a single path has
HYDRAS_FLAGS = {  # Hydra's own, with whether a word follows
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version", "--multirun", "-m", "--run", "-r"), False),
    **dict.fromkeys(("--resolve", "--shell-completion", "-sc"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"), True),
    **dict.fromkeys(("--config-dir", "-cd", "--info", "-i", "--experimental-rerun"), True),
}


def typed(words: Sequence[str], known_names: Callable[[], Sequence[str]]) -> list[str]:
    """The overrides that a command line means, with paths quoted where Hydra's grammar needs it.

    `known_names` gives the keys there are. GraftError for a flag or a word that belongs to no key.
    """
    expanded = written_out(repeated(compared(with_auto(words))))
    if expanded != list(words) and not any(word in MULTIRUN for word in expanded):
        expanded.insert(0, "-m")
    words = expanded
    sweeps = any(word in MULTIRUN for word in words)
    meant: list[str] = []
    follows = False  # whether the word is the value of one of Hydra's flags
    for place, word in enumerate(words):
        if word.startswith("paths.run_dir=") and not follows:
            raise GraftError(
                f"`{word}`: a run has one folder, which Hydra makes and `paths.run_dir` follows; set that one: "
                f"hydra.run.dir={word.partition('=')[2]}"
            )
        if follows or is_override(word):
            named_once(word)
            meant.append(word if follows else quoted_path(added(word), sweeps))
            follows = False
            continue
        flag = word.partition("=")[0]
        if flag not in HYDRAS_FLAGS and not (word.startswith("-") and not word.startswith("--")):
            raise GraftError(explained(word, words[place + 1 : place + 2], known_names()))
        follows = HYDRAS_FLAGS.get(flag, False) and "=" not in word
        meant.append(word)
    return meant


def repeated(words: Sequence[str]) -> list[str]:
    """The words with `seeds=5` and `splits=5` written out as that many values; GraftError for what is no number."""
    meant = list(words)
    for place, word in enumerate(words):
        name, _, count = word.partition("=")
        if (key := REPEATED.get(name)) is None:
            continue
        if not count.isdecimal() or not 1 <= int(count) <= MOST_REPEATS:
            raise GraftError(
                f"`{word}`: how many, from 1 to {MOST_REPEATS}, such as {name}=5 for {key}=0,1,2,3,4; values of your "
                f"own: -m {key}=7,8,9"
            )
        if other := next((one for one in words if one.startswith(f"{key}=")), None):
            raise GraftError(f"`{word}` with `{other}`: both set {key}; leave one out")
        meant[place] = f"{key}={','.join(map(str, range(int(count))))}"
    return meant


def named_once(word: str) -> None:
    """GraftError where a group's list of options names one twice, which Hydra would read as once."""
    group, _, value = word.partition("=")
    if group.lstrip("+") not in MANY:
        return
    for listed in re.findall(r"\[[^\]]*\]", value):
        if twice := [name for name, count in Counter(names_in(listed)).items() if count > 1]:
            raise GraftError(f"`{word}`: {twice[0]} is named twice; leave one out.")


def added(word: str) -> str:
    """A key of a mapping that is open is added, for which Hydra wants a sign."""
    key = word.partition("=")[0]
    return f"++{word}" if any(key == one or key.startswith(f"{one}.") for one in OPEN) else word


def is_override(word: str) -> bool:
    """Whether a word sets or deletes a key."""
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


def explained(word: str, following: Sequence[str], names: Sequence[str]) -> str:
    """What to type in the place of `--epochs 3` or `epochs 3`."""
    key, _, value = word.lstrip("-").partition("=")
    key = key.replace("-", "_")
    shown = word
    if not value and following and not is_override(following[0]) and not following[0].startswith("-"):
        value, shown = following[0], f"{word} {following[0]}"
    if (CONF / "experiment" / f"{word}.yaml").is_file():
        return f"`{word}` is an experiment: {program()} experiment={word}"
    close = [name for name in names if name == key] or [name for name in names if name.split(".")[-1] == key]
    close = sorted(close, key=lambda name: (not name.startswith("training."), len(name)))
    commands = " or ".join(f"{name}={value or '...'}" for name in close[:3])
    hint = f" Here: {commands}" if close else ""
    return (
        f"`{shown}`: a setting is typed key=value, without dashes or spaces around the equals sign.{hint}\n"
        f"`{program()} --help` lists what can be set."
    )


def quoted_path(word: str, sweeps: bool = False) -> str:
    """An override whose path is quoted where Hydra would stumble over it, with `~` for the home folder expanded.

    In a sweep commas separate values, unless a file of the whole name is there.
    """
    key, equals, value = word.partition("=")
    if not equals or not is_path(key, value) or value.startswith(("'", '"', "[", "{")) or "${" in value:
        return word
    if "," in value and sweeps and not user_path(value).exists():
        return f"{key}={','.join(quoted(one) for one in value.split(','))}"
    return f"{key}={quoted(value)}"


def is_path(key: str, value: Any) -> bool:
    """Whether a value is a path: by its key or, of another key, because it begins with `~/`."""
    return isinstance(value, str) and (key.split(".")[-1] in PATHS or value.startswith("~/"))


def quoted(path: str) -> str:
    """A path as Hydra's grammar takes it."""
    if path == "~" or path.startswith("~/"):
        path = str(user_path(path))
    if PLAIN.fullmatch(path):
        return path
    return in_quotes(path)


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Python values by key, with `~` expanded where they are paths."""
    return {
        key: str(user_path(value)) if is_path(key, value) and value.startswith("~/") else value
        for key, value in values.items()
    }
