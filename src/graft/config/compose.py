"""What Hydra makes of the chosen files alone, without experiment, debug mode and single keys: what a config lacks."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from graft.config.text import leaves

if TYPE_CHECKING:
    from omegaconf import DictConfig

MANY = ("logger", "term")  # groups that take a list of options
REMOVABLE = (*MANY, "callbacks")  # groups whose keys may be removed
FREE = ("options", "where", "val_where", "test_where")  # mappings whose keys may be removed


def reference(
    config: Mapping[str, Any], choices: Mapping[str, str | None]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What the chosen files give without experiment, debug mode and single keys: their keys, and Hydra's choices."""
    from hydra.core.global_hydra import GlobalHydra

    wanted = {
        group: option
        for group, option in choices.items()
        if option is not None and group.split("/")[0] not in ("hydra", "experiment", "debug")
    }
    for group in MANY:  # Hydra notes no choice for a list of options; each is a key of its name
        if group in config and group not in choices:
            wanted[group] = f"[{','.join(name for name in config[group] if name in options_of(group))}]"
    search_path = str(GlobalHydra.instance().config_loader().get_search_path())
    paths = config["paths"]
    if isinstance(paths, Mapping) and "run_dir" in paths:
        paths = {**paths, "run_dir": ""}  # each job's own, of which no default is made
    return resolved(search_path, tuple(wanted.items()), json.dumps(paths))


@functools.lru_cache(maxsize=64)
def resolved(
    search_path: str, wanted: tuple[tuple[str, str], ...], paths: str
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """A composition with these `paths`, which are JSON, once a process: most jobs of a sweep choose the same files."""
    from omegaconf import OmegaConf

    known, expected = composed(search_path, wanted)
    known.paths = json.loads(paths)
    return cast(dict[str, Any], OmegaConf.to_container(known, resolve=True)), expected


@functools.lru_cache(maxsize=64)
def composed(search_path: str, wanted: tuple[tuple[str, str], ...]) -> tuple["DictConfig", dict[str, str | None]]:
    """The config and Hydra's choices of a composition, once a process; `search_path` tells one set of files apart."""
    from hydra import compose
    from hydra.errors import ConfigCompositionException
    from omegaconf import OmegaConf

    added: set[str] = set()  # groups that only an experiment's defaults list names
    while True:
        overrides = [f"{'+' * (group in added)}{group}={option}" for group, option in wanted]
        try:
            known = compose("train", overrides=overrides, return_hydra_config=True)
        except ConfigCompositionException as error:
            missing = re.match(r"Could not override '([^']+)'", str(error))
            if missing is None or missing[1] in added:
                raise
            added.add(missing[1])
        else:
            expected = dict(known.hydra.runtime.choices)
            return OmegaConf.masked_copy(known, [str(group) for group in known if group != "hydra"]), expected


def options_of(group: str) -> list[str]:
    """The options of a group; what begins with an underscore is what they build on."""
    from hydra.core.global_hydra import GlobalHydra

    options = GlobalHydra.instance().config_loader().get_group_options(group)
    return [option for option in options if not option.startswith("_")]


def group_problems(
    config: Mapping[str, Any], choices: Mapping[str, str | None], expected: Mapping[str, str | None]
) -> Iterator[str]:
    """Groups without an option, or with several, which Hydra would merge silently."""
    for group in expected:
        if group in choices or group in MANY:
            continue
        if group in config:
            options = ",".join(sorted(options_of(group)))
            yield f"`{group}`: takes one option of {options}, not a list; to compare several use -m {group}=a,b"
        else:
            yield f"`{group}`: a run needs one; choose {group}=<one of {','.join(sorted(options_of(group)))}>"


def removed_keys(config: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Keys that a file has and the config lacks, because of a ~key on the command line."""
    for key, _ in leaves(known, mappings=True):
        *above, name = key.split(".")
        holder: Any = config
        for part in above:
            holder = holder.get(part) if isinstance(holder, Mapping) else None
        if (
            isinstance(holder, Mapping)
            and name not in holder
            and not set(FREE) & set(above)
            and key.split(".")[0] not in REMOVABLE
        ):
            yield f"`~{key}`: the key is needed; give it a value instead"
