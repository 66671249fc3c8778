"""Write data as tar shards for training that reads a stream: `graft shards data=<data> to=<folder or address>`."""

import sys
from pathlib import Path

from graft.cli.words import own_and_config
from graft.errors import GraftError
from graft.locations import CONF

USAGE = """graft shards data=<data> to=<folder or address> [shard_mb=100] [key=value]
  to         a new folder, or an address such as s3://bucket/photos
  shard_mb   megabytes of a shard, about: 10 and more shards mix well, 100 MB and more read well over a network
  key=value  everything else is the config's, as in `graft train`: data.target.root=photos, data.split_seed=1, ...
The target's train, val and test splits become train-000000.tar, ..., val-000000.tar, ...; with sizes.json, which says
how many samples each has, and classes.txt. Files are kept as they are; train with data=shards data.target.root=<to>"""
KEYS = ("to", "shard_mb")
# What training would need and nothing here does.
OVERRIDES = ("logger=csv", "baselines=none", "strategy=scratch", "backbone.weights=null")


def main(arguments: list[str]) -> int:
    """Write the shards and print each; returns the exit code."""
    settings, overrides = own_and_config("shards", arguments, KEYS, USAGE)
    if "to" not in settings or not overrides:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        limit = float(settings.get("shard_mb", "100"))
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e6:
        raise GraftError(f"shard_mb={settings['shard_mb']}: the megabytes of a shard, such as 100.")

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from graft.cache.disk import DiskCache
    from graft.cli.launch import explain
    from graft.cli.notebook import check_composed
    from graft.data.readers.shards import Place
    from graft.data.shard_writer import write_domain
    from graft.experiment import build_data

    try:
        config = check_composed([*OVERRIDES, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise GraftError(explain(error, CONF)) from None
    cache = DiskCache(Path(config["paths"]["cache_dir"]) / "computed", int(config["cache"]["limit_gb"] * 2**30))
    target = build_data(config, cache, share=False).domains["target"]
    place, samples = Place(settings["to"], "to"), 0
    for one in write_domain(target, place, int(limit * 1e6), config["data"]["split_seed"]):
        samples += one.samples
        print(f"{one.name}  {one.samples:,} samples, {one.size / 1e6:.1f} MB", flush=True)
    print(f"{samples:,} samples of {len(target.classes or ())} classes in {place.root}")
    return 0
