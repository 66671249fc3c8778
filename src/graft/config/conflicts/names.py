"""How a config's chosen options are called, and what several checks ask of it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graft.config.facts import attribute
from graft.config.text import shown


@dataclass(frozen=True)
class Names:
    """How the chosen option of a group is called, and what its class says of itself."""

    config: Mapping[str, Any]
    choices: Mapping[str, str | None]

    def __getitem__(self, group: str) -> str:
        """The option's name as Hydra knows it, else that of its class."""
        return self.choices.get(group) or self.config[group]["_target_"].rpartition(".")[2]

    def says(self, group: str, attribute_name: str, default: Any) -> Any:
        """An attribute of the class that a group's `_target_` names."""
        return attribute(self.config[group].get("_target_", ""), attribute_name, default)


def without_target_loss(objective: Mapping[str, Any]) -> str:
    """The keys by which the target's loss never counts, as one would type them; empty where it does."""
    alpha, end = objective.get("alpha", 0.0), objective.get("alpha_end")
    if alpha is None or (alpha == 1 and end in (None, 1)):
        return f"objective.alpha={shown(alpha)}" + (f" objective.alpha_end={shown(end)}" if end is not None else "")
    return ""


def wants_labels(term: Mapping[str, Any], whose: str = "needs_labels") -> bool:
    """Whether a term learns from labels, and nothing stands for them as texts of samples do."""
    says = functools.partial(attribute, term.get("_target_", ""))
    return says(whose, False) and term.get(says("instead_of_labels", ""), None) is None


def without_labels(domain: Mapping[str, Any] | None) -> bool:
    """Whether a domain, or the one that several are read alike as, has samples without labels."""
    domain = domain or {}
    while isinstance(inner := domain.get("domain"), Mapping):
        domain = inner
    return domain.get("label", "") is None and attribute(domain.get("_target_", ""), "may_lack_labels", False)


def mixing_keys(config: Mapping[str, Any]) -> str:
    """The keys that mix samples, as one would type them; empty where none is set."""
    training = config["training"]
    return " ".join(f"training.{k}={training[k]}" for k in ("mixup_alpha", "cutmix_alpha") if training[k] is not None)


def several_processes(trainer: Mapping[str, Any]) -> bool:
    """Whether a run has, or may have, more than one."""
    devices = trainer["devices"]
    several = devices > 1 if isinstance(devices, int) else isinstance(devices, list) and len(devices) > 1
    return several or trainer["strategy"] != "auto" or trainer.get("num_nodes", 1) > 1
