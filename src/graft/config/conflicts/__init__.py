"""Keys that are right by themselves and cannot be meant together."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.compress import compress_contradictions
from graft.config.conflicts.federated import federate_contradictions, federated_contradictions
from graft.config.conflicts.fusion import fusion_contradictions
from graft.config.conflicts.labels import (
    detection_contradictions,
    label_contradictions,
    label_set_contradictions,
    table_contradictions,
    writing_contradictions,
)
from graft.config.conflicts.layer import layer_contradictions
from graft.config.conflicts.names import Names
from graft.config.conflicts.objective import objective_contradictions, teacher_contradictions, term_contradictions
from graft.config.conflicts.selection import (
    evaluation_contradictions,
    ledger_contradictions,
    refit_contradictions,
    save_contradictions,
    selection_contradictions,
)
from graft.config.conflicts.source import (
    domain_contradictions,
    pretrain_contradictions,
    sharing_contradictions,
    source_contradictions,
    unlabelled_contradictions,
)
from graft.config.conflicts.strategy import closed_fit_contradictions, growth_contradictions, strategy_contradictions
from graft.config.conflicts.stream import stream_contradictions
from graft.config.conflicts.training import (
    averaging_contradictions,
    missing_runs,
    sharding_contradictions,
    step_contradictions,
    training_contradictions,
    tuning_contradictions,
)
from graft.config.conflicts.zero_shot import zero_shot_contradictions


def contradictions(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[str]:
    """Keys that are right by themselves and cannot be meant together."""
    names = Names(config, choices)
    yield from strategy_contradictions(config, names)
    yield from layer_contradictions(config, names)
    yield from growth_contradictions(config, names)
    yield from closed_fit_contradictions(config, names)
    yield from zero_shot_contradictions(config, names)
    yield from source_contradictions(config, names)
    yield from fusion_contradictions(config, names)
    yield from pretrain_contradictions(config, names)
    yield from unlabelled_contradictions(config, names)
    yield from sharing_contradictions(config, names)
    yield from domain_contradictions(config["data"])
    yield from objective_contradictions(config, names)
    yield from term_contradictions(config, names)
    yield from label_contradictions(config, names)
    yield from label_set_contradictions(config, names)
    yield from detection_contradictions(config, names)
    yield from writing_contradictions(config, names)
    yield from table_contradictions(config, names)
    yield from stream_contradictions(config, names)
    yield from training_contradictions(config, names)
    yield from selection_contradictions(config, names)
    yield from refit_contradictions(config, names)
    yield from ledger_contradictions(config, names)
    yield from save_contradictions(config["save"])
    yield from evaluation_contradictions(config, names)
    yield from tuning_contradictions(config)
    yield from averaging_contradictions(config, names)
    yield from teacher_contradictions(config, names)
    yield from sharding_contradictions(config, names)
    yield from step_contradictions(config, names)
    yield from compress_contradictions(config, names)
    yield from federated_contradictions(config, names)
    yield from federate_contradictions(config, names)
    yield from missing_runs(config)
