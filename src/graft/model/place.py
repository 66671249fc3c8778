"""Where a model lies: what a path to a run, a sweep or a model stands for. Without torch: the config check asks too."""

import json
from pathlib import Path

from graft.errors import GraftError
from graft.files import user_path
from graft.runs.folder import BEST_MODEL, MODEL

DESCRIPTION = "model.json"  # without it a folder holds no model


def folder_of(place: Path) -> Path:
    """The model folder that a path stands for."""
    place = user_path(place)
    for folder in (place, place / MODEL, place.parent, best_of(place)):
        if folder is not None and (folder / DESCRIPTION).is_file():
            return folder
    if not place.exists():
        raise GraftError(
            f"{place}: there is no such folder. Give a run's folder, such as logs/<name>/runs/<time>_<id>."
        )
    raise GraftError(
        f"{place}: no model is kept there. A run keeps one with save.model=always (in a sweep, best keeps that "
        "of the best job alone); its checkpoints can be used in a further run: backbone.weights=<file>"
    )


def best_of(sweep: Path) -> Path | None:
    """The model folder that a sweep keeps, None without one. GraftError where jobs followed different metrics."""
    file = sweep / BEST_MODEL
    if not file.is_file():
        return None
    jobs = {metric: one["job"] for metric, one in json.loads(file.read_text()).items()}
    if len(jobs) > 1:
        found = ", ".join(f"{sweep / job} ({metric})" for metric, job in jobs.items())
        raise GraftError(f"{sweep}: its jobs followed different metrics, so there are several best ones: {found}.")
    return sweep / Path(next(iter(jobs.values()))).name / MODEL


def task_of(folder: Path) -> str:
    """The `_target_` of what a model folder's network predicts; empty where the description does not say."""
    try:
        return str(json.loads((folder / DESCRIPTION).read_text("utf-8"))["task"]["_target_"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
