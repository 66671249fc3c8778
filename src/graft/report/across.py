"""Strategies over several data sets, label budgets or networks: the measures of Agarwal et al. (NeurIPS 2021)."""

from collections.abc import Mapping, Sequence

import numpy as np

from graft.report.export import Table
from graft.report.statistics import CONFIDENCE
from graft.report.study import Arm, Setting, Study
from graft.runs.sweeps import MIN_SEEDS

DRAWS = 2000
Scores = Sequence[np.ndarray]  # of an arm, `(seeds,)` for each setting


def table(study: Study) -> Table | None:
    """A line for each arm that every setting has; None with one setting, or fewer than two such arms."""
    if len(study.settings) < 2:
        return None
    found = {
        name: [scores(arms[name]) for arms in map(by_name, study.settings)]
        for name in by_name(study.settings[0])
        if all(name in by_name(setting) for setting in study.settings)
    }
    if len(found) < 2:
        return None
    scratch = next((one.name for one in study.settings[0].arms if one.is_reference and one.name in found), None)
    fewest = min(len(values) for settings in found.values() for values in settings)
    drawn = {name: redrawn(values) for name, values in found.items()} if fewest >= MIN_SEEDS else {}
    rows = [row(study, name, found, drawn, scratch) for name in by_rank(found, study.higher_is_better)]
    better = f"better than {scratch}" if scratch else ""
    caption = (
        f"Over {len(study.settings)} settings, of the strategies that all of them have, each at the configuration that "
        "validation chose there. Interquartile mean: of the middle half of all seeds' scores. Better than: the chance "
        "that a seed of the strategy scores above one of the other, mean over settings. Intervals redraw seeds within "
        "each setting (stratified bootstrap, Agarwal et al., 2021); few seeds make them too short."
    )
    header = ["strategy", "mean place", "95 %", "interquartile mean", "95 %", better, "95 %" if scratch else ""]
    return Table("across", "Over all settings", caption, header, rows).without_empty()


def by_name(setting: Setting) -> dict[str, Arm]:
    """A setting's arms."""
    return {arm.name: arm for arm in setting.arms}


def scores(arm: Arm) -> np.ndarray:
    """Test scores `(seeds,)` of what validation chose."""
    return np.array(arm.best.scores, dtype=float)


def redrawn(values: Scores) -> list[np.ndarray]:
    """Scores with the seeds of each setting drawn with replacement, `(DRAWS, seeds)` each."""
    random = np.random.default_rng(0)
    return [one[random.integers(0, len(one), (DRAWS, len(one)))] for one in values]


def row(
    study: Study, name: str, found: Mapping[str, Scores], drawn: Mapping[str, Scores], scratch: str | None
) -> list[str]:
    """An arm's cells."""
    higher = study.higher_is_better

    def ends(values: np.ndarray, digits: int) -> str:
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        return " to ".join(f"{end:.{digits}f}" for end in np.quantile(values, tails))

    cells = [name, f"{float(places(found, higher)[name]):.1f}"]
    cells.append(ends(places(drawn, higher)[name], 1) if drawn else "")
    cells.append(f"{float(interquartile_mean(found[name])):.4f}")
    cells.append(ends(interquartile_mean(drawn[name]), 4) if drawn else "")
    if scratch is None or name == scratch:
        return [*cells, "", ""]
    cells.append(f"{float(improvement(found[name], found[scratch], higher)):.2f}")
    return [*cells, ends(improvement(drawn[name], drawn[scratch], higher), 2) if drawn else ""]


def by_rank(found: Mapping[str, Scores], higher: bool) -> list[str]:
    """Names of arms, the best mean place first."""
    means = places(found, higher)
    return sorted(found, key=lambda name: float(means[name]))


def places(found: Mapping[str, Scores], higher: bool) -> dict[str, np.ndarray]:
    """Mean place `(...)` of each arm over settings, by its mean over seeds, the last axis; equal ones share theirs."""
    names = list(found)
    settings = range(len(next(iter(found.values()))))
    total = np.zeros(())
    for setting in settings:
        means = np.stack([found[name][setting].mean(axis=-1) for name in names], axis=-1)  # (..., K)
        means = -means if higher else means
        before = (means[..., None, :] < means[..., :, None]).sum(axis=-1)
        equal = (means[..., None, :] == means[..., :, None]).sum(axis=-1)
        total = total + before + (equal + 1) / 2
    return {name: total[..., place] / len(settings) for place, name in enumerate(names)}


def interquartile_mean(values: Scores) -> np.ndarray:
    """Mean `(...)` of the middle half of all scores of all settings; seeds are the last axis."""
    ordered = np.sort(np.concatenate(values, axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def improvement(values: Scores, others: Scores, higher: bool) -> np.ndarray:
    """Probability `(...)` that a score is better than one of the other arm, ties one half; mean over settings."""
    sign = 1.0 if higher else -1.0
    found = []
    for mine, theirs in zip(values, others, strict=True):
        apart = sign * (mine[..., :, None] - theirs[..., None, :])
        found.append(((apart > 0) + 0.5 * (apart == 0)).mean(axis=(-2, -1)))
    return np.mean(found, axis=0)
