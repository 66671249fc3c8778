"""A whole run of a few overrides, in this process, in a folder of the test's own, and without baselines."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import execute
from graft.config import plain

CONF = str(Path(__file__).parents[1] / "conf")


def config_in(root: Path, *overrides: str, folder: str = "run", cache: Path | None = None) -> dict[str, Any]:
    """The config of a run in a folder below `root`, which is made; the cache is in `root` or in a place of its own."""
    paths = [
        f"++paths.run_dir={root / folder}",
        f"++paths.cache_dir={cache or root}",
        f"paths.root={root}",
    ]
    with initialize_config_dir(CONF, **VERSION_BASE):
        cfg = compose("train", overrides=[*paths, "baselines=none", *overrides])
    (root / folder).mkdir(parents=True, exist_ok=True)
    return plain(cfg)


def train_in(root: Path, *overrides: str, folder: str = "run", cache: Path | None = None) -> dict[str, Any]:
    """Train so; the run's results."""
    return execute(config_in(root, *overrides, folder=folder, cache=cache))
