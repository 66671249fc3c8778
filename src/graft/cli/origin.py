"""Which keys of a message the chosen experiment sets, for a user who never typed them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from hydra.conf import HydraConf

from graft.config import leaves

KEY = re.compile(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)+)=")


def with_origin(message: str, hydra: HydraConf, overrides: Sequence[str]) -> str:
    """A message and, where it blames keys that only the experiment sets, a line that says so."""
    experiment = hydra.runtime.choices.get("experiment")
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    blamed = [key for key in dict.fromkeys(KEY.findall(message)) if key not in typed]
    if not experiment or not blamed:
        return message
    own = keys_of(experiment, [Path(one.path) for one in hydra.runtime.config_sources if one.schema == "file"])
    found = [key for key in blamed if key in own]
    if not found:
        return message
    keys = ", ".join(f"`{key}`" for key in found)
    return f"{message}\n{keys}: set by experiment={experiment}; your command can set another value."


def keys_of(experiment: str, folders: Sequence[Path]) -> set[str]:
    """The dotted keys that an experiment's own file sets; none where it cannot be read."""
    for folder in folders:
        file = folder / "experiment" / f"{experiment}.yaml"
        if file.is_file():
            content = yaml.safe_load(file.read_text())
            return {key for key, _ in leaves(content)} if isinstance(content, Mapping) else set()
    return set()
