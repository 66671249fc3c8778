"""Names of folders: what Hydra's run and sweep folders are called.

Importing this module registers the resolvers that conf/hydra/default.yaml uses. Workers of parallel launchers get them
too, because Hydra hands them graft.cli.sweep_callback, whose module imports this one.
"""

import hashlib
import secrets
from typing import TypedDict, cast

from omegaconf import ListConfig, OmegaConf

from graft.cli.hydra_versions import register_resolver


class Paths(TypedDict):
    """The keys of `paths`."""

    root: str
    logs_dir: str
    cache_dir: str
    data_dir: str
    run_dir: str


def job_id(overrides: ListConfig) -> str:
    """8 hex digits that depend on the overrides alone, so that the same job of a sweep finds its folder again."""
    lines = cast(list[str], OmegaConf.to_container(overrides, resolve=False))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:8]


def run_id() -> str:
    """6 random hex digits: two runs started in the same second get different folders."""
    return secrets.token_hex(3)


def once(text: str) -> str:
    """The text as it was when it was first asked for: with one `name` for a sweep, whatever its jobs' names are."""
    return text


register_resolver("graft.job_id", job_id, replace=True)
# Cached by expression, not by value, and Hydra hands a sweep's cache to its jobs, as for ${now:}.
register_resolver("graft.run_id", run_id, use_cache=True, replace=True)
register_resolver("graft.once", once, use_cache=True, replace=True)
