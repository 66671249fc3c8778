"""The groups and keys of conf/train.yaml, with the code that reads each; only the check reads this, as text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from graft.config.types import Part, Seed

if TYPE_CHECKING:
    from graft.baselines.plan import BaselineName
    from graft.cache.disk import CacheSettings
    from graft.compress.base import NoCompression
    from graft.federated.base import NoFederation
    from graft.heads.base import HeadSettings
    from graft.loggers.build import LoggerSettings
    from graft.model.save import SaveSettings
    from graft.paths import Paths
    from graft.pretrain import PretrainSettings
    from graft.report.slices import ReportSettings
    from graft.training.optim import OptimizerSettings
    from graft.training.trainer import TrainerSettings, TrainingSettings
    from graft.training.tuning import TuningSettings
    from graft.weights.averaging import NoAveraging
    from graft.weights.files import BackboneSettings


class Config(TypedDict):
    """A composed config. A group of one `_target_` alone is a Part: its constructor says what its keys may hold."""

    name: str
    seed: Seed
    allow: Sequence[str]
    tags: Sequence[str]
    notes: str | None
    bn: Literal["joint", "separate", "domain_specific"]
    baselines: Literal["auto", "none"] | Sequence["BaselineName"]
    resume: Literal["auto"] | bool | str | None
    tune: Literal["lr"] | None
    soup: str | None
    test: bool
    data: Part
    backbone: "BackboneSettings"
    head: "HeadSettings"
    task: Part
    source_task: Part | None
    source_head: "HeadSettings | None"
    objective: Part
    training: "TrainingSettings"
    tuning: "TuningSettings"
    averaging: "Part | NoAveraging"
    compress: "Part | NoCompression"
    federated: "Part | NoFederation"
    federate: "Part | NoFederation"
    optimizer: "OptimizerSettings"
    scheduler: Part
    rates: Part
    strategy: Part
    term: Mapping[str, Part | None] | None
    selection: Part
    pretrain: "PretrainSettings"
    trainer: "TrainerSettings"
    callbacks: Mapping[str, Part | None] | None
    logger: "LoggerSettings | Mapping[str, Part | None] | None"
    cache: "CacheSettings"
    save: "SaveSettings"
    report: "ReportSettings"
    paths: "Paths"
