"""Graft: transfer learning with PyTorch Lightning, from a notebook as from the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft.experiment import Experiment
    from graft.model.model import Model


def train(*overrides: str | Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Run one experiment as `python train.py <overrides>` does, in a whole run folder, and return its results.

    `train("experiment=resnet_ft", "optimizer.lr=3e-3", seed=1)`; a mapping is a whole config. Raises GraftError for a
    user's mistake, Diverged and Interrupted.
    """
    from graft.cli.notebook import train as run  # torch takes a second

    return run(*overrides, **values)


def assemble(*overrides: str | Mapping[str, Any], **values: Any) -> "Experiment":
    """Build what a config names and train nothing: data, module, selection rule; see `train` for the arguments."""
    from graft.cli.notebook import assemble as build

    return build(*overrides, **values)


def load_run(place: str | Path, *, allow: Sequence[str] = ()) -> "Model":
    """The model of a run, from its folder, its `model` folder or a sweep's: `load_run(folder).predict("photo.jpg")`.

    Needs neither the data nor the configuration of the run. `allow` names packages of your own that the network is
    made of. Raises GraftError where there is no model, or one that cannot be built here.
    """
    from graft.model.model import load

    return load(Path(place), allow)
