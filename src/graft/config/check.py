"""The check of a composed config, without data and without torch: every mistake at once, before anything is loaded."""

import gc
import math
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from graft import registry
from graft.config.compose import group_problems, reference, removed_keys
from graft.config.conflicts import contradictions
from graft.config.libraries import refusals
from graft.config.text import leaves, shown
from graft.config.values import Findings, look
from graft.errors import GraftError
from graft.weights.files import WORDS, weights_file

if TYPE_CHECKING:  # imported where it is used: help and annotations of constructors do without it
    from omegaconf import DictConfig


MISSING = "???"  # what OmegaConf writes where a value has to be given


def check(
    cfg: "DictConfig", choices: Mapping[str, str | None] | None = None, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The plain config; raise one GraftError that lists every mistake of it, and print what could not be checked.

    `choices` is Hydra's choice of an option for every group, inside of a Hydra context: it tells groups that lack an
    option, keys that were removed, and the option's name in messages. `known` is the plain config, where there is one.
    """
    with no_collection():
        config = plain(cfg) if known is None else dict(known)
        found = problems_of(cfg, config, choices)
    tell_unchecked(found)
    return config


def problems_of(cfg: "DictConfig", config: dict[str, Any], choices: Mapping[str, str | None] | None) -> Findings:
    """Raise one GraftError that lists every mistake of a config, whose plain form is `config`; else what was found."""
    problems = [
        f"`{key}` has to be given: {key}=..."
        for key in sorted(key for key, value in leaves(config) if value == MISSING)
    ]
    refused = [*target_problems(config)]
    problems += [*refused, *unresolved(config)]
    defaults: Mapping[str, Any] = {}
    incomplete: list[str] = []
    if choices is not None:
        defaults, expected = reference(config, choices)
        incomplete = [*group_problems(config, choices, expected)]
        problems += incomplete
    found = look(config, dict(leaves(defaults, mappings=True)))
    own = written(cfg, config)
    if not incomplete:
        problems += [*found.unknown_keys(own), *removed_keys(config, defaults)]
    wrong = {key: text for key, text in found.wrong if key.partition("[")[0] in own} | infinite(own)
    problems += [text for text in wrong.values() if not (refused and registry.TARGET in text)]
    problems += weights_problems(own.get("backbone.weights"))
    for key in (one for one in own if one.startswith("backbone.parts.") and one.endswith(".weights")):
        problems += [text.replace("backbone.weights=", f"{key}=") for text in weights_problems(own[key])]
    if not problems:
        problems += [*refusals(config), *contradictions(config, choices or {})]
    if problems:
        raise GraftError(report(problems))
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Without garbage collection: a syntax tree is many small objects, and going through them a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def plain(cfg: "DictConfig", without: Container[str] = ()) -> dict[str, Any]:
    """The config as plain containers with every reference resolved; `without` are groups that are left out."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def resolved(key: str) -> Any:
        value = cfg[key]
        if not OmegaConf.is_config(value):
            return value
        unresolved = OmegaConf.to_container(value, resolve=False)  # in a fifth of the time
        return OmegaConf.to_container(value, resolve=True) if "${" in str(unresolved) else unresolved

    try:
        return {str(key): resolved(str(key)) for key in cfg if key not in without}
    except OmegaConfBaseException as error:
        raise GraftError(report([f"a reference leads nowhere: {str(error).splitlines()[0]}"])) from None


def written(cfg: "DictConfig", config: Mapping[str, Any]) -> dict[str, Any]:
    """(dotted key -> value) of all but references to other keys, where a mistake would be reported twice."""
    from omegaconf import OmegaConf

    raw = leaves(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)))
    references = {key for key, value in raw if isinstance(value, str) and "${" in value}
    below = tuple(f"{reference}." for reference in references)
    return {
        key: value for key, value in leaves(config, mappings=True) if not (key in references or key.startswith(below))
    }


def target_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Every `_target_` that may not be built, and what in `allow` is no package of parts."""
    allowed = config.get("allow", [])
    yield from registry.wrong_packages(allowed)
    yield from registry.problems(config, allowed if isinstance(allowed, list) else [])


def unresolved(config: Mapping[str, Any]) -> Iterator[str]:
    """Text in which a reference stands after all were resolved: it would be resolved where the config is read again."""
    for key, value in leaves(config):
        if "${" in str(value):
            yield f"`{key}={shown(value)}`: a value cannot hold the text ${{, also not behind a backslash"


def infinite(own: Mapping[str, Any]) -> dict[str, str]:
    """By key the numbers that are not finite."""
    numbers = {key: value for key, value in own.items() if isinstance(value, float) and not math.isfinite(value)}
    return {key: f"`{key}={shown(value)}`: must be a finite number" for key, value in numbers.items()}


def weights_problems(weights: Any) -> Iterator[str]:
    """Weights that are neither a known word nor a file that is there."""
    if isinstance(weights, str) and weights not in WORDS and not weights.startswith("pip:"):
        try:
            weights_file(weights)
        except GraftError as error:
            yield str(error)


def tell_unchecked(found: Findings) -> None:
    """Print which keys could not be checked here: mistakes in them are reported where they are used."""
    for key, why in found.unchecked.items():
        print(f"Not checked: `{key}`: {why}", file=sys.stderr)


def report(problems: Iterable[str]) -> str:
    """All problems in one message, with what to type to see what there is."""
    lines = list(problems)
    head = "A mistake in the configuration:" if len(lines) == 1 else f"{len(lines)} mistakes in the configuration:"
    tail = (
        "`python train.py --help` lists the groups, `--help <group>` what their keys may hold; "
        "adding `--cfg job` to your command prints every key."
    )
    return "\n".join([head, *(f"  - {line}" for line in lines), tail])
