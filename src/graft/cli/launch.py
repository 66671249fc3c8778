"""Hydra's app on the command line, with config errors as one message."""

import difflib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from graft.cli.program import program, with_program
from graft.locations import ROOT
from graft.runs.process import is_main_process


def launch(app: Callable[[], None], conf: Path) -> int:
    """Run Hydra's app on sys.argv and return the exit code; a config error is one message and code 2.

    HYDRA_FULL_ERROR=1 in the environment lets the traceback through. What torchrun or srun started ends together.
    """
    from graft.cli.ranks import RANKS

    code = 1
    try:
        code = run(app, conf)
    finally:
        code = RANKS.end(code)
    return code


def run(app: Callable[[], None], conf: Path) -> int:
    """The same for this process alone."""
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from graft import signals
    from graft.cli import job
    from graft.cli.help import config_folders
    from graft.cli.hydra_versions import with_sweep_flag
    from graft.errors import LaunchRefused
    from graft.files import disk_message
    from graft.runs.folder import release_all

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    os.environ.setdefault("GRAFT_ROOT", str(ROOT))
    job.STATE = job.State()
    sys.argv[1:] = with_sweep_flag(sys.argv[1:], config_folders(sys.argv[1:], conf))
    try:
        with signals.restored():  # Hydra tells no callback of a sweep that its sweeper gave up
            app()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if wants_traceback:
            raise
        say(with_program(explain(error, conf)))
        return job.USER_ERROR
    except OSError as error:  # Hydra's own files
        message = disk_message(error, Path(error.filename or "."))
        if wants_traceback or message is None:
            raise
        say(message)
        return job.USER_ERROR
    except LaunchRefused as error:
        say(str(error))
        return job.USER_ERROR
    except KeyboardInterrupt:
        say("Interrupted.")
        return signals.exit_code(signal.SIGINT)
    except Exception as error:  # such as joblib's, where one of its workers was killed
        from graft.cli.sweep_callback import give_up

        if wants_traceback or not give_up(error):
            raise
    finally:
        release_all()
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
    return job.STATE.exit_code


def say(message: str) -> None:
    """Print why there is no run, in one process of all that meet the same mistake."""
    if is_main_process():
        print(message, file=sys.stderr)


def explain(error: Exception, conf: Path) -> str:
    """What is wrong with the config, with the closest match instead of Hydra's own advice."""
    from graft.config import suggestion
    from graft.config.renamed import EXPERIMENTS, new_name

    text = str(error) or str(error.__cause__)
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, option = found.groups()
        if group == "experiment" and option in EXPERIMENTS:
            return f"`experiment={option}` is now `{EXPERIMENTS[option]}`."
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE) or [p.stem for p in (conf / group).glob("*.yaml")]
        options = [name for name in options if not name.startswith("_")]
        close = difflib.get_close_matches(option, options, n=1)
        hint = f" (did you mean `{group}={close[0]}`?)" if close else ""
        return f"`{group}={option}`: there is no such option{hint}. Options of {group}: {', '.join(sorted(options))}."
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"`+{found[1]}`: the key exists; set it without the plus sign."
    if found := re.search(r"Could not (?:override|delete)\b[^']*'([^']+)'", text):
        # Of a mapping that is set as a whole OmegaConf names the key inside
        found = re.search(rf"full_key: ({re.escape(found[1])}\.\S+)", str(error.__cause__)) or found
        if renamed := new_name(found[1]):
            return f"{renamed}.\n{SEE_HELP}"
        names = known_names(conf)
        if found[1] in names:
            return (
                f"`{found[1]}`: other options of `{found[1].partition('.')[0]}` have this key, the chosen one has not. "
                f"Choose one that has; where a sweep chooses it, write ++{found[1]}=...\n{SEE_HELP}"
            )
        hint = suggestion(found[1].split("@")[0], names) if "@" not in found[1] else ""
        return f"`{found[1]}`: there is no such key or group{hint}.\n{SEE_HELP}"
    if found := re.search(r"^Key '([^']+)' is not in struct.*full_key: (\S+)", text, flags=re.DOTALL):
        if renamed := new_name(found[2]):
            return f"{renamed}.\n{SEE_HELP}"
        return f"`{found[2]}`: there is no such key{suggestion(found[2], known_names(conf))}.\n{SEE_HELP}"
    if "Config group override must be" in text:
        empty = [argument for argument in sys.argv[1:] if re.fullmatch(r"\+*[\w/@.]+=(null)?", argument)]
        return f"`{' '.join(empty)}`: a group needs an option.\n{SEE_HELP}"
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'", text):
        return f"`{found[1]}`: several values make a sweep, which needs -m: {program()} -m {shlex.join(sys.argv[1:])}"
    text = re.sub(r"\s*See https://hydra\.cc\S*.*", "", text)
    return f"The configuration cannot be read: {text.strip()}\n{SEE_HELP}"


SEE_HELP = "`python train.py --help` lists the groups, adding `--cfg job` to a command prints every key."


def known_names(conf: Path) -> list[str]:
    """Every group and every dotted key that the config files write, whichever options are chosen."""
    import yaml

    from graft.config import leaves

    names = []
    for path in [conf / "train.yaml", *sorted(conf.glob("*/**/*.yaml"))]:
        group = path.relative_to(conf).parent
        if group.name == "race":  # spaces of races, no group
            continue
        names.append(str(group))
        text = path.read_text()
        if group.name == "hydra" or group.parts[:1] in [("experiment",), ("debug",), ("sweep",)]:
            continue
        package = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
        prefix = package[1].replace("_global_", "") if package else ".".join(group.parts)
        try:
            keys = yaml.safe_load(text) or {}
        except yaml.YAMLError:
            continue
        keys.pop("defaults", None)
        names += [key for key, _ in leaves(keys, f"{prefix}." if prefix else "", mappings=True)]
    return [name for name in names if name != "."]
