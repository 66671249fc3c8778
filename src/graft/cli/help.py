"""`--help` from the config files alone; imports nothing but the standard library at the top, to answer at once."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from graft.cli.program import with_program

START = """\
Graft: does transfer learning help on your data, which strategy, and how sure are we?

Your own data, one command each:
  python train.py experiment=my_photos data.target.root=photos                              photos, a folder per class
  python train.py experiment=my_table data.target.file=table.csv data.target.label=outcome  a table: a row per sample
  python train.py experiment=my_texts data.target.file=reviews.csv                          columns `text` and `label`
  python train.py experiment=my_recordings data.target.root=recordings                      sounds, a folder per class

No data at hand (handwritten digits; nothing is downloaded):
  python train.py experiment=resnet_ft

Does it help, and how sure is that? Strategies and seeds side by side, with a summary:
  python train.py -m experiment=resnet_ft strategy=scratch,frozen,full seed=0,1,2

Other commands: graft tune (find a learning rate), graft soup (average a sweep's weights),
  graft show (print a finished run or sweep), graft report (write a page on it), graft clean (free disk space)
"""
SEE_HELP = "Everything that can be chosen: python train.py --help"
USAGE = """\
More that a command can say:

  python train.py experiment=resnet_ft                        one run
  python train.py experiment=resnet_ft optimizer.lr=3e-3      the same with another value
  python train.py experiment=resnet_ft strategy=lp_ft         the same with another option of a group
  python train.py -m experiment=resnet_ft strategy=scratch,full seed=0,1,2
                                                              a sweep: every combination, and a summary
  python train.py experiment=resnet_ft compare=transfer       is transfer worth it? a sweep with a fair baseline
  python train.py experiment=resnet_ft tune=lr                find a learning rate; optimizer.lr=auto finds and uses it
  python train.py experiment=resnet_ft debug=fast             one batch of everything: does it work?
  python train.py experiment=resnet_ft --cfg job              print the whole config, run nothing
  python train.py --help strategy                             keys of a group's options and what they may hold;
                                                              also of one option: --help strategy=lora
  python train.py experiment=resnet_ft resume=true hydra.run.dir=FOLDER
                                                              go on with an interrupted run; resume=auto also begins one
  python train.py soup=FOLDER                                 test the averaged weights of a finished sweep's jobs
"""


def asks_for_help(arguments: list[str]) -> bool:
    """Whether --help or -h is among the arguments."""
    return any(argument in ("--help", "-h") for argument in arguments)


def show_help(arguments: list[str], conf: Path) -> int:
    """Print the help that a command line asks for; returns the exit code.

    What follows --help says of what: nothing (of all), groups, or options such as `strategy=lora`. The options in
    --config-dir are among them.
    """
    folders = config_folders(arguments, conf)
    wanted = words_after_help(arguments)
    if not wanted:
        print(with_program(help_text(*folders)))
        return 0
    try:
        texts = [group_text(word, folders) for word in wanted]
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    print("\n\n".join(texts))
    return 0


def show_start() -> int:
    """Print where to begin: what a command line without a word asks for."""
    print(with_program(START + SEE_HELP))
    return 0


def config_folders(arguments: list[str], conf: Path) -> list[Path]:
    """The config folders: the user's own, from --config-dir, and ours."""
    text = "\n".join(arguments)
    return [*map(Path, re.findall(r"^(?:--config-dir|-cd)[=\n](.+)$", text, flags=re.MULTILINE)), conf]


def words_after_help(arguments: list[str]) -> list[str]:
    """What stands behind --help, without flags and their values."""
    place = min(arguments.index(flag) for flag in ("--help", "-h") if flag in arguments)
    after = arguments[place + 1 :]
    values = {i + 1 for i, argument in enumerate(after) if argument in ("--config-dir", "-cd")}
    return [word for i, word in enumerate(after) if i not in values and not word.startswith("-")]


def group_text(word: str, folders: list[Path]) -> str:
    """The keys of `<group>=<option>`, or of every option of a group. Raises LookupError where there is no such one."""
    from graft.config.describe import describe

    group, _, wanted = word.partition("=")
    groups = [
        "train",
        *group_names(folders),
        *(f"{g}/{below}" for g in group_names(folders) for below in below_group(g, folders)),
    ]
    if group not in groups:
        close = difflib.get_close_matches(group, groups, n=1)
        hint = f" (did you mean {close[0]}?)" if close else f". Groups: {', '.join(sorted(groups))}"
        raise LookupError(f"--help {word}: there is no such group{hint}")
    folder = "." if group == "train" else group
    options = {"train": folders[-1] / "train.yaml"} if group == "train" else options_in(folder, folders)
    if wanted and wanted not in options:
        close = difflib.get_close_matches(wanted, options, n=1)
        hint = f" (did you mean {group}={close[0]}?)" if close else f". Options: {', '.join(options)}"
        raise LookupError(f"--help {word}: there is no such option{hint}")
    parts = []
    for option, path in options.items():
        if wanted in ("", option):
            title = "train.py" if group == "train" else f"{group}={option}"
            parts.append("\n".join([f"{title}  {description(path)}", *describe(folder, option, folders)]))
    return "\n\n".join(parts)


def group_names(folders: Sequence[Path]) -> list[str]:
    """The groups in some config folders."""
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    return sorted(names - {"hydra", "race", "sweep"})


def below_group(group: str, folders: Sequence[Path]) -> list[str]:
    """The groups inside of a group."""
    found = [folder / group for folder in folders if (folder / group).is_dir()]
    return sorted({path.name for folder in found for path in folder.iterdir() if path.is_dir()})


def options_in(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The options of a group and their files; the first of two folders wins, as with Hydra.

    A file whose name begins with an underscore is what options build on, and none itself.
    """
    files = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("[!_]*.yaml")}
    return dict(sorted(files.items()))


def help_text(*folders: Path) -> str:
    """How to run, then every experiment, strategy and other group with a line for each option."""
    defaults = default_options(folders[-1])
    groups = group_names(folders)
    first = [group for group in ("experiment", "strategy") if group in groups]
    parts = [
        START,
        USAGE,
        "Options of each group, with * at the default:",
    ]
    for group in first + [group for group in groups if group not in first]:
        parts += [f"\n{group}=", *option_lines(options_in(group, folders), defaults.get(group, ()))]
        for name in below_group(group, folders):
            title = f"\n{group}/{name}@{group}.source= or @{group}.target="
            parts += [title, *option_lines(options_in(f"{group}/{name}", folders), ())]
    return "\n".join(parts)


def default_options(conf: Path) -> dict[str, tuple[str, ...]]:
    """What train.yaml's defaults list chooses, read without a YAML library."""
    text = (conf / "train.yaml").read_text()
    return {
        group: tuple(option.strip() for option in options.strip("[]").split(","))
        for group, options in re.findall(r"^ *- (\w+): (\S.*?) *$", text, flags=re.MULTILINE)
    }


def option_lines(options: Mapping[str, Path], defaults: tuple[str, ...]) -> Iterator[str]:
    """A line for each option of a group: its name and what its file's first comment says."""
    width = max(map(len, options), default=0)
    for option, path in options.items():
        yield f"  {'*' if option in defaults else ' '} {option:{width}}  {description(path)}"


def description(path: Path) -> str:
    """The first comment of a config file that says something to people."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").rstrip()
        if line and not line.startswith("#"):
            break
    return ""
