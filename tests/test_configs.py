"""Every shipped yaml composes, explains itself in its first line and names a class that takes its keys."""

import importlib
import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from graft.cli.hydra_versions import VERSION_BASE

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(p.relative_to(CONF).with_suffix("") for p in CONF.rglob("*.yaml") if p.name != "train.yaml")
CALLED = [o for o in OPTIONS if o.parts[0] not in ("experiment", "debug", "hydra", "paths", "race", "sweep")]
NOT_ARGUMENTS = {
    "backbone": {"weights", "share"},
    "head": {"sharing", "weights", "grow"},
    "optimizer": {"options", "lr", "weight_decay", "decay_norms_and_biases"},
}
GIVEN_BY_RUN = {"head": {"feature_size", "num_outputs", "context"}}  # of these what a constructor names
NEEDED = ["data.target.root=photos", "data.target.name=MNIST", "data.source.name=MNIST", "data.source.root=photos"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return compose("train", overrides=[*overrides, "++paths.run_dir=run"])


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_the_first_line_says_what_it_is(option):
    lines = (CONF / option.with_suffix(".yaml")).read_text().splitlines()
    line = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert line.startswith("# ")
    assert 10 < len(line) <= 122


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] == "experiment"], ids=str)
def test_an_experiment_shows_its_command(option):
    text = (CONF / option.with_suffix(".yaml")).read_text()
    assert f"experiment={option.name}" in "".join(line for line in text.splitlines() if line.startswith("#"))


GROUPS = {group: [o.name for o in CALLED if o.parts[:-1] == (group,)] for group in sorted({o.parts[0] for o in CALLED})}
LISTS = ("logger", "term", "callbacks")  # of which a config takes several options at once
LARGEST = max(len(names) for group, names in GROUPS.items() if group not in LISTS)


@pytest.mark.parametrize("number", range(LARGEST))
def test_options_compose_and_their_keys_are_arguments_of_their_class(number):
    """As many configs as the largest group has options hold all options of all groups."""
    options = {group: names[number % len(names)] for group, names in GROUPS.items() if group not in LISTS}
    cfg = composed(*(f"{group}={name}" for group, name in options.items()))
    for group, name in options.items():
        keys_are_arguments(cfg, group, name)


def test_options_of_lists_compose_together_and_their_keys_are_arguments_of_their_class():
    cfg = composed(*(f"{group}=[{','.join(GROUPS[group])}]" for group in LISTS))
    for group in LISTS:
        for name in GROUPS[group]:
            keys_are_arguments(cfg, group, name)


def keys_are_arguments(cfg, group, name):
    node = OmegaConf.to_container(cfg[group], resolve=False)
    node = node[name] if group == "term" else node
    if "_target_" not in node or group == "data":
        return
    module, _, attribute = node.pop("_target_").rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), attribute))
    given = GIVEN_BY_RUN.get(group, set()) & set(signature.parameters)
    keys = set(node) - NOT_ARGUMENTS.get(group, set()) | given
    signature.bind_partial(**dict.fromkeys(keys))
    required = {p.name for p in signature.parameters.values() if p.default is p.empty and p.kind < 2}
    assert group == "optimizer" or required <= keys
