"""A trial's job: how its validations reach the study, and whether the study gives the trial up."""

from collections.abc import Callable, Mapping
from typing import Any

from graft.studies.library import optuna, pruner_of, settings_of

Report = Callable[[int, float], bool]  # what an epoch, from 1, reads on validation: whether the trial is pruned


def reporter(sweeper: Mapping[str, Any], epochs: int) -> Report:
    """Reports to the trial that Hydra's `sweeper` names: the study may be another process's."""
    settings, library = settings_of(sweeper), optuna()
    study = library.load_study(
        study_name=settings.study_name, storage=settings.storage, pruner=pruner_of(settings, epochs)
    )
    frozen = next(one for one in study.get_trials(deepcopy=False) if one.number == sweeper["trial"])
    trial = library.trial.Trial(study, frozen._trial_id)
    known = {*frozen.intermediate_values}  # of a trial that was interrupted and goes on

    def report(epoch: int, value: float) -> bool:
        if epoch not in known:
            trial.report(value, epoch)
            known.add(epoch)
        return bool(trial.should_prune())

    return report
