"""Checks of a composed config that need neither data nor torch: every mistake at once, before anything is loaded."""

import difflib
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from graft import registry
from graft.errors import GraftError

MANY = ("logger", "term")  # groups that take a list of options
REMOVABLE = (*MANY, "callbacks")  # groups whose keys may be removed
# A mapping of one of these names, or one whose default is empty, takes any key.
FREE = ("options", "where", "val_where", "test_where")
WEIGHT_WORDS = ("imagenet", "pretrained", "source")
WEIGHT_FILES = (".pt", ".pth", ".safetensors", ".ckpt")
TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Rule:
    """What a key may hold; where `types` is empty, the type of the key's default decides."""

    types: tuple[type, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None  # like low, but itself not allowed
    below: float | None = None  # like high, but itself not allowed
    choices: tuple[str, ...] = ()  # allowed texts
    null: bool = False

    def allowed(self) -> str:
        """The rule in words."""
        words = (["null"] if self.null else []) + list(self.choices)
        words += [TYPE_NAMES[kind] for kind in self.types if not (kind is str and self.choices)]
        bounds = {">=": self.low, ">": self.above, "<=": self.high, "<": self.below}
        limits = " and ".join(f"{sign} {bound:,}" for sign, bound in bounds.items() if bound is not None)
        return f"{' or '.join(words)} {limits}".rstrip()

    def accepts(self, value: Any) -> bool:
        """Whether the value fits."""
        if value is None:
            return self.null
        if not any(is_a(value, kind) for kind in self.types):
            return False
        if isinstance(value, str):
            return not self.choices or value in self.choices
        if is_a(value, float):
            return (
                (self.low is None or value >= self.low)
                and (self.above is None or value > self.above)
                and (self.high is None or value <= self.high)
                and (self.below is None or value < self.below)
            )
        return True


def is_a(value: Any, kind: type) -> bool:
    """Whether a config value is of a type; an integer is a number too, true and false are not."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


FRACTION = Rule((float,), low=0, high=1)
COUNT = Rule((int,), low=1)
COUNT_OR_NULL = Rule((int,), low=1, null=True)
NOT_NEGATIVE = Rule((float,), low=0)
POSITIVE = Rule((float,), above=0)
SEED = Rule((int,), low=0, below=2**32)
# Strategies that leave some of the backbone as it was pretrained, for a while or for good.
FREEZING = (
    *("frozen", "lp_ft", "gradual", "freeze_until", "surgical", "bitfit", "norm_only", "fine_tune"),
    *("lora", "ia3", "peft", "adapter"),
)
PRETRAINED_TERMS = ("l2sp", "delta", "feature_distillation", "lwf", "co_tuning", "stochnorm")
SHIFTS = ("colour", "blur", "noise", "telephone")  # of images and of speech
MIXABLE = ("Multiclass", "Multilabel")  # tasks whose labels MixUp and CutMix can mix
PRECISIONS = (
    *("auto", "32-true", "16-mixed", "bf16-mixed", "64-true", "16-true", "bf16-true"),
    *("transformer-engine", "transformer-engine-float16", "16", "32", "64", "bf16"),
)
AUGMENT = Rule((str,), choices=("none", "light", "crop", "randaugment", "specaugment"))

# Key pattern (* stands for part of a name) -> what the default in the file cannot say: ranges, names, null, unions.
RULES: dict[str, Rule] = {
    "seed": SEED,
    "bn": Rule((str,), choices=("joint", "separate", "domain_specific")),
    "tune": Rule((str,), choices=("lr",), null=True),
    "resume": Rule((bool, str), null=True),
    "soup": Rule((str,), null=True),
    "notes": Rule((str,), null=True),
    "data.source": Rule((dict,), null=True),
    "source_task": Rule((dict,), null=True),
    "data.seed": SEED,
    "data.*_seed": SEED,
    "data.*.seed": SEED,
    "data.*.samples": COUNT,
    "data.*.*_fraction": Rule((float,), low=0, below=1),
    "data.*.label": Rule((str, int)),
    "data.*.class_names": Rule((list,), null=True),
    "data.*.label_kind": Rule((str,), choices=("classes", "numbers")),
    "data.*.rows": Rule((str,), choices=("all", "even", "odd")),
    "data.*.few_values": Rule((int,), low=0),
    "data.*.on_bad_sample": Rule((str,), choices=("error", "skip")),
    "data.*.delimiter": Rule((str,), null=True),
    "data.*.*_file": Rule((str,), null=True),
    "data.*.text": Rule((str, int), low=0),
    "data.*.path": Rule((str, int)),
    "data.*.folder": Rule((str,), null=True),
    "data.*.pattern": Rule((str,), null=True),
    "data.*.*where": Rule((dict,), null=True),
    "data.*.format": Rule((str,), choices=("auto", "tsv", "csv", "jsonl")),
    "data.*.classes": Rule((list,), null=True),
    "data.epoch": Rule((str, int), choices=("target", "source", "longest"), low=1),
    "data.augment": AUGMENT,
    "data.balance": Rule((str,), choices=("none", "weights", "sampler")),
    "data.image_size": COUNT_OR_NULL,
    "data.labels_per_class": COUNT_OR_NULL,
    "data.batch_size": Rule((int, str), choices=("auto",), low=1),
    "data.source_batch_size": COUNT_OR_NULL,
    "data.eval_batch_size": COUNT,
    "data.num_workers": Rule((int,), low=0),
    "backbone.weights": Rule((str,), null=True),
    "backbone.size": COUNT_OR_NULL,
    "backbone.columns": Rule((str,), choices=("auto",)),
    "backbone.width": COUNT,
    "backbone.blocks": COUNT,
    "backbone.heads": COUNT,
    "backbone.channels": Rule((str, int), choices=("auto",), low=1),
    "backbone.max_length": COUNT_OR_NULL,
    "backbone.sample_rate": Rule((int,), low=1000),
    "backbone.seconds": POSITIVE,
    "backbone.bands": COUNT,
    "backbone.*_ms": POSITIVE,
    "backbone.library": Rule((str,), choices=("timm", "torchvision")),
    "backbone.pooling": Rule((str,), choices=("mean", "cls", "last", "max")),
    "backbone.tokenizer": Rule((str,), null=True),
    "backbone.input_size": Rule((str, int), choices=("auto",), low=1),
    "backbone.max_words": COUNT,
    "backbone.min_count": COUNT,
    "backbone.embedding_size": COUNT,
    "backbone.hidden_size": COUNT,
    "backbone.layers": COUNT,
    "backbone.dropout": Rule((float,), low=0, below=1),
    "head.sharing": Rule((str,), choices=("auto", "shared", "separate")),
    "head.dropout": Rule((float,), low=0, below=1),
    "*task.label_smoothing": Rule((float,), low=0, below=1),
    "*task.main_metric": Rule((str,), choices=("acc", "auroc")),
    "*task.loss": Rule((str,), choices=("mse", "l1")),
    "objective.alpha": FRACTION,
    "objective.alpha_end": Rule((float,), low=0, high=1, null=True),
    "objective.schedule": Rule((str,), choices=("linear", "cosine", "step")),
    "objective.step_at": FRACTION,
    "objective.weight": NOT_NEGATIVE,
    "strategy.probe_fraction": Rule((float,), above=0, below=1),
    "strategy.*_fraction": FRACTION,
    "strategy.*_ratio": NOT_NEGATIVE,
    "strategy.train_bn": Rule((bool,), null=True),
    "strategy.every_epochs": COUNT,
    "strategy.unfreeze_at": Rule((list,), null=True),
    "strategy.stages": Rule((int,), low=0, null=True),
    "strategy.module": Rule((str,), null=True),
    "strategy.freeze_epochs": COUNT,
    "strategy.div_factor": POSITIVE,
    "strategy.r": COUNT,
    "strategy.alpha": POSITIVE,
    "strategy.dropout": Rule((float,), low=0, below=1),
    "strategy.target_modules": Rule((str, list)),
    "strategy.bottleneck": COUNT,
    "rates.*_ratio": NOT_NEGATIVE,
    "rates.decay": Rule((float,), above=0, high=1),
    "rates.factor": Rule((float,), low=1),
    "term.*.weight": NOT_NEGATIVE,
    "term.l2sp.head_ratio": NOT_NEGATIVE,
    "term.bss.k": COUNT,
    "term.delta.layers": Rule((list,), null=True),
    "term.delta.attention_samples": COUNT,
    "term.*.temperature": POSITIVE,
    "term.co_tuning.relationship": Rule((str,), choices=("direct", "reverse")),
    "term.stochnorm.probability": FRACTION,
    "term.bi_tuning.momentum": FRACTION,
    "term.bi_tuning.keys_per_class": COUNT,
    "term.bi_tuning.projection_size": COUNT,
    "training.epochs": COUNT,
    "training.accumulate_batches": COUNT,
    "training.validate_every_epochs": COUNT,
    "training.log_every_steps": COUNT,
    "training.on_nonfinite": Rule((str,), choices=("stop", "skip", "continue")),
    "training.gradient_clip_norm": Rule((float,), above=0, null=True),
    "training.mixup_alpha": Rule((float,), above=0, null=True),
    "training.cutmix_alpha": Rule((float,), above=0, null=True),
    "training.stochastic_depth": Rule((float,), low=0, below=1, null=True),
    "training.progressive_resizing.initial_scale": Rule((float,), above=0, below=1, null=True),
    "training.progressive_resizing.growth_begins": Rule((float,), low=0, below=1),
    "training.progressive_resizing.full_size_at": Rule((float,), above=0, high=1),
    "training.threads": COUNT_OR_NULL,
    "tuning.low": POSITIVE,
    "tuning.high": POSITIVE,
    "tuning.steps": Rule((int,), low=10),
    "tuning.suggestion": Rule((str,), choices=("valley", "steep", "minimum")),
    "tuning.max_batch_size": COUNT,
    "optimizer.lr": Rule((float, str), choices=("auto",), above=0),
    "pretrain.optimizer.lr": POSITIVE,
    "training.wise_ft_alphas": Rule((list,), null=True),
    "averaging.decay": Rule((float,), low=0, below=1),
    "averaging.start_fraction": Rule((float,), low=0, below=1),
    "averaging.lr_fraction": Rule((float,), above=0, null=True),
    "cache.augmented_views": Rule((int,), low=0),
    "cache.limit_gb": POSITIVE,
    "pretrain.epochs": COUNT,
    "pretrain.batch_size": COUNT,
    "pretrain.seed": SEED,
    "pretrain.augment": AUGMENT,
    "trainer.devices": Rule((int, str, list), low=-1),
    "trainer.num_nodes": COUNT,
    "trainer.precision": Rule((str, int), choices=PRECISIONS),
    "trainer.deterministic": Rule((bool, str), choices=("warn",)),
    "trainer.profiler": Rule((str,), choices=("simple", "advanced", "pytorch"), null=True),
    "trainer.max_time": Rule((str,), null=True),
    "trainer.limit_*_batches": POSITIVE,
    "callbacks.*": Rule((dict,), null=True),
    "logger.*": Rule((dict,), null=True),
    "logger.wandb.mode": Rule((str,), choices=("auto", "online", "offline", "disabled")),
}
# The source's pretraining has an optimizer and a scheduler of its own, with the same keys.
RULES |= {
    prefix + key: rule
    for prefix in ("", "pretrain.")
    for key, rule in {
        "optimizer.weight_decay": NOT_NEGATIVE,
        "scheduler.*_fraction": FRACTION,
        "scheduler.*factor": POSITIVE,
        "scheduler.patience_epochs": Rule((int,), low=0),
    }.items()
}


def check(cfg: DictConfig, choices: Mapping[str, str | None] | None = None) -> None:
    """Raise one GraftError that lists every mistake of a composed config.

    `choices` is Hydra's choice of an option for every group, inside of a Hydra context: its files, without the
    experiment and the command line, say which keys there are and of which type. Without it only values are checked.
    """
    config = plain(cfg)
    values = written(cfg, config)
    problems = [f"`{key}` has to be given: {key}=..." for key in sorted(OmegaConf.missing_keys(cfg))]
    problems += registry.wrong_packages(allowed := config.get("allow", []))
    problems += registry.problems(config, allowed if isinstance(allowed, list) else [])
    problems += unresolved(config)
    if choices is not None:
        defaults, expected = reference(config, choices)
        incomplete = [*group_problems(config, choices, expected)]
        problems += incomplete
        if not incomplete:
            problems += [*unknown_keys(values, defaults), *removed_keys(config, defaults)]
            problems += wrong_types(values, defaults)
    problems += wrong_values(values)
    if not problems:
        problems += contradictions(config, choices or {})
    if problems:
        raise GraftError(report(problems))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain containers with every reference resolved."""
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise GraftError(report([f"a reference leads nowhere: {str(error).splitlines()[0]}"])) from None


def written(cfg: DictConfig, config: Mapping[str, Any]) -> dict[str, Any]:
    """(dotted key -> value) of all but references to other keys, where a mistake would be told twice."""
    raw = leaves(OmegaConf.to_container(cfg, resolve=False))
    references = {key for key, value in raw if isinstance(value, str) and "${" in value}
    return {
        key: value
        for key, value in leaves(config, mappings=True)
        if not any(key == reference or key.startswith(f"{reference}.") for reference in references)
    }


def unresolved(config: Mapping[str, Any]) -> Iterator[str]:
    """Text in which a reference stands after all were resolved: it would be resolved where the config is read again."""
    found: dict[str, str] = {}  # by value, at its shortest key: the others refer to that one
    for key, value in leaves(config):
        if "${" in str(value):
            found[str(value)] = min(found.get(str(value), key), key, key=len)
    for value, key in found.items():
        yield f"`{key}={value}`: a value cannot hold the text ${{, also not behind a backslash"


def report(problems: Iterable[str]) -> str:
    """All problems in one message, with what to type to see what there is."""
    lines = list(problems)
    head = "A mistake in the configuration:" if len(lines) == 1 else f"{len(lines)} mistakes in the configuration:"
    tail = "`python train.py --help` lists the groups, adding `--cfg job` to your command prints every key."
    return "\n".join([head, *(f"  - {line}" for line in lines), tail])


def reference(
    config: Mapping[str, Any], choices: Mapping[str, str | None]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What the chosen files give without experiment, debug mode and single keys: their keys, and Hydra's choices."""
    from hydra.core.global_hydra import GlobalHydra

    wanted = {
        group: option
        for group, option in choices.items()
        if option is not None and group.split("/")[0] not in ("hydra", "experiment", "debug")
    }
    for group in MANY:  # Hydra notes no choice for a list of options; each is a key of its name
        if group in config and group not in choices:
            wanted[group] = f"[{','.join(name for name in config[group] if name in options_of(group))}]"
    search_path = str(GlobalHydra.instance().config_loader().get_search_path())
    known, expected = composed(search_path, tuple(wanted.items()))
    known.paths = config["paths"]
    return OmegaConf.to_container(known, resolve=True), expected


@functools.lru_cache(maxsize=64)
def composed(search_path: str, wanted: tuple[tuple[str, str], ...]) -> tuple[DictConfig, dict[str, str | None]]:
    """The config and Hydra's choices of a composition, once a process: most jobs of a sweep choose the same files.

    `search_path` only tells one set of files from another.
    """
    from hydra import compose
    from hydra.errors import ConfigCompositionException

    added: set[str] = set()  # groups that only an experiment's defaults list names
    while True:
        overrides = [f"{'+' * (group in added)}{group}={option}" for group, option in wanted]
        try:
            known = compose("train", overrides=overrides, return_hydra_config=True)
        except ConfigCompositionException as error:
            missing = re.match(r"Could not override '([^']+)'", str(error))
            if missing is None or missing[1] in added:
                raise
            added.add(missing[1])
        else:
            expected = dict(known.hydra.runtime.choices)
            return OmegaConf.masked_copy(known, [group for group in known if group != "hydra"]), expected


def options_of(group: str) -> list[str]:
    """The options of a group."""
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options(group)


def group_problems(
    config: Mapping[str, Any], choices: Mapping[str, str | None], expected: Mapping[str, str | None]
) -> Iterator[str]:
    """Groups without an option, or with several, which Hydra would merge silently."""
    for group in expected:
        if group in choices or group in MANY:
            continue
        if group in config:
            options = ",".join(sorted(options_of(group)))
            yield f"`{group}`: takes one option of {options}, not a list; to compare several use -m {group}=a,b"
        else:
            yield f"`{group}`: a run needs one; choose {group}=<one of {','.join(sorted(options_of(group)))}>"


def unknown_keys(keys: Iterable[str], known: Mapping[str, Any]) -> Iterator[str]:
    """Keys that no chosen file has: misspelt in an experiment, or added with a plus sign."""
    names = [key for key, _ in leaves(known)]
    found: set[str] = set()
    for key in keys:
        unknown = first_unknown(key.split("."), known)
        if unknown and unknown not in found:
            found.add(unknown)
            yield f"`{unknown}`: there is no such key{suggestion(unknown, names)}"


def first_unknown(path: list[str], known: Any) -> str | None:
    """The shortest beginning of a key's path that the known keys lack."""
    for depth, name in enumerate(path):
        if known is None or known == {} or not isinstance(known, Mapping) or (depth and path[depth - 1] in FREE):
            return None
        if name not in known:
            return ".".join(path[: depth + 1])
        known = known[name]
    return None


def removed_keys(config: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Keys that a file has and the config lacks, because of a ~key on the command line."""
    for key, _ in leaves(known, mappings=True):
        *above, name = key.split(".")
        holder: Any = config
        for part in above:
            holder = holder.get(part) if isinstance(holder, Mapping) else None
        if (
            isinstance(holder, Mapping)
            and name not in holder
            and not set(FREE) & set(above)
            and key.split(".")[0] not in REMOVABLE
        ):
            yield f"`~{key}`: the key is needed; give it a value instead"


def suggestion(key: str, names: Iterable[str]) -> str:
    """` (did you mean ...?)` with the key spelt alike, else those of the same last name; empty where there is none."""
    names = sorted(set(names))
    last = key.split(".")[-1]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    close = close or [name for name in names if name.split(".")[-1] == last]
    if not close and key == last:
        by_last = {name.split(".")[-1]: name for name in reversed(names)}
        close = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)]
    return f" (did you mean {' or '.join(f'`{name}`' for name in close[:3])}?)" if close else ""


def wrong_types(values: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Values of another type than the default in their file, where no rule speaks about the key."""
    defaults = dict(leaves(known, mappings=True))
    for key, value in values.items():
        default = defaults.get(key)
        if default is None or default == "???" or key not in defaults or rule_of(key):
            continue
        if key == "allow" or key.endswith(registry.TARGET):  # the registry says more about them
            continue
        kind = type(default)
        if value is None or not is_a(value, kind):
            yield f"`{key}={shown(value)}`: must be {TYPE_NAMES[kind]}, as in the default {shown(default)}"
        elif kind is list and default and are_numbers(default) and not are_numbers(value):
            yield f"`{key}={shown(value)}`: must be a list of numbers, as in the default {shown(default)}"


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all values are numbers."""
    return all(is_a(value, float) for value in values)


def wrong_values(values: Mapping[str, Any]) -> Iterator[str]:
    """Values that the rules do not allow."""
    for key, value in values.items():
        rule = rule_of(key)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"`{key}={shown(value)}`: must be a finite number"
        elif rule and not rule.accepts(value):
            close = difflib.get_close_matches(str(value), rule.choices, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            yield f"`{key}={shown(value)}`: must be {rule.allowed()}{hint}"
    yield from weights_problems(values.get("backbone.weights"))


def weights_problems(weights: Any) -> Iterator[str]:
    """Weights that are neither a known word nor a file."""
    if not isinstance(weights, str) or weights in WEIGHT_WORDS or weights.startswith("pip:"):
        return
    if weights.endswith(WEIGHT_FILES):
        if not Path(weights).is_file():
            yield f"`backbone.weights={weights}`: there is no such file"
    elif not re.search(r"[:/]", weights):
        close = difflib.get_close_matches(weights, WEIGHT_WORDS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        yield (
            f"`backbone.weights={weights}`: must be null, {', '.join(WEIGHT_WORDS)}, pip:<package> or a file that ends "
            f"in {', '.join(WEIGHT_FILES)}{hint}"
        )


def contradictions(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[str]:
    """Keys that are right by themselves and cannot be meant together."""
    data, objective = config["data"], config["objective"]
    weights, strategy = config["backbone"]["weights"], choices.get("strategy")
    source, labeled = data.get("source"), data.get("target_labeled", True)
    if strategy in FREEZING and weights is None:
        yield (
            f"`strategy={strategy}` with `backbone.weights=null`: it keeps part of a random backbone as it is, which "
            "teaches nothing; give pretrained weights (backbone.weights=source, imagenet, ...) or use strategy=scratch"
        )
    if weights == "source" and source is None and strategy != "scratch":
        yield (
            "`backbone.weights=source` without source data: choose some (data/domain@data.source=...), "
            "or other weights (backbone.weights=imagenet, null, ...)"
        )
    if choices.get("selection") == "source_val" and source is None:
        yield "`selection=source_val` without source data: use selection=target_val or selection=last"
    for shift in data.get("test_shifts", ()):
        if shift not in SHIFTS:
            yield f"`data.test_shifts=[{shift}]`: must be of {', '.join(SHIFTS)}"
    if data.get("epoch") == "source" and source is None:
        yield "`data.epoch=source` without source data: use data.epoch=target"
    if "alpha" in objective:
        alphas = [alpha for alpha in (objective["alpha"], objective["alpha_end"]) if alpha is not None]
        if source is None and any(alphas):
            yield (
                f"`objective.alpha={' to '.join(map(str, alphas))}` without source data: "
                "use objective.alpha=0 or choose source data (data/domain@data.source=...)"
            )
        if not labeled and any(alpha != 1 for alpha in alphas):
            yield (
                f"`data.target_labeled=false` with `objective.alpha={' to '.join(map(str, alphas))}`: "
                "an unlabelled target has no loss of its own; use objective.alpha=1"
            )
    else:
        name = choices.get("objective", objective["_target_"])
        if source is None:
            yield f"`objective={name}` without source data: use objective=alpha or choose data/domain@data.source=..."
        if not labeled:
            yield f"`data.target_labeled=false` with `objective={name}`: use objective=alpha objective.alpha=1"
    terms = config.get("term") or {}
    for term in PRETRAINED_TERMS:
        if term in terms and (strategy == "scratch" or weights is None):
            reason = "strategy=scratch" if strategy == "scratch" else "backbone.weights=null"
            yield f"`term={term}` with `{reason}`: it keeps to pretrained weights, and there are none; leave it out"
    for term in ("co_tuning", "bi_tuning"):
        if term in terms and not labeled:
            yield f"`term={term}` with `data.target_labeled=false`: it needs the target's labels; leave the term out"
    if "bi_tuning" in terms and choices.get("head", "linear") != "linear":
        yield f"`term=bi_tuning` with `head={choices['head']}`: it needs one vector a class; use head=linear"
    yield from table_contradictions(config)
    yield from training_contradictions(config, choices)
    yield from tuning_contradictions(config)
    yield from averaging_contradictions(config, choices)
    yield from step_contradictions(config)
    if isinstance(config.get("resume"), str) and not Path(config["resume"]).is_file():
        yield f"`resume={config['resume']}`: there is no such checkpoint; resume=true takes the run folder's last one"


def table_contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """A table and what is not for one: backbones and options of images, tasks for labels of another kind."""
    data, training, task = config["data"], config["training"], config["task"]["_target_"].rpartition(".")[2].lower()
    kind = data["target"].get("label_kind")
    if kind is None:
        if "columns" in config["backbone"]:
            yield "`backbone` takes tables, and `data.target` is none: use another backbone, or data=table"
        return
    if "columns" not in config["backbone"]:
        yield "`data.target` is a table, and this backbone takes none: use backbone=mlp or backbone=ft_transformer"
    if kind == "numbers" and task != "regression":
        yield f"`data.target.label_kind=numbers` with `task={task}`: numbers need task=regression"
    if kind == "classes" and task == "regression":
        yield "`task=regression` with `data.target.label_kind=classes`: it needs data.target.label_kind=numbers"
    for key, value, off in (
        ("data.augment", data["augment"], "none"),
        ("data.test_shifts", data["test_shifts"], []),
        ("training.mixup_alpha", training["mixup_alpha"], None),
        ("training.cutmix_alpha", training["cutmix_alpha"], None),
        ("training.progressive_resizing.initial_scale", training["progressive_resizing"]["initial_scale"], None),
    ):
        if value != off:
            yield f"`{key}={shown(value)}` with a table: it is for images; use {key}={shown(off)}"


def tuning_contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be looked for as asked."""
    tuning, trainer = config["tuning"], config["trainer"]
    if tuning["low"] >= tuning["high"]:
        yield f"`tuning.low={tuning['low']}` with `tuning.high={tuning['high']}`: the rate rises from low to high"
    if config["tune"] and config["resume"]:
        yield f"`tune={config['tune']}` with `resume={shown(config['resume'])}`: it trains nothing that could go on"
    devices = trainer["devices"]
    several = devices > 1 if isinstance(devices, int) else isinstance(devices, list) and len(devices) > 1
    if config["data"]["batch_size"] == "auto" and (several or trainer["strategy"] != "auto"):
        yield (
            "`data.batch_size=auto` with several processes: it is looked for on one; "
            "find it with trainer=gpu or trainer=cpu, then give the number"
        )


def training_contradictions(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[str]:
    """Lengths, schedules and processes that cannot be meant together."""
    epochs, every = config["training"]["epochs"], config["training"]["validate_every_epochs"]
    strategy, selection = choices.get("strategy"), choices.get("selection")
    if strategy == "lp_ft" and epochs < 2:
        yield f"`training.epochs={epochs}` with `strategy=lp_ft`: its two phases need an epoch each"
    if every < epochs and epochs % every:
        yield (
            f"`training.validate_every_epochs={every}` with `training.epochs={epochs}`: the last epoch would not be "
            "validated; use a divisor"
        )
    if config["scheduler"]["_target_"].endswith(".Plateau"):
        if selection == "last":
            yield "`scheduler=plateau` with `selection=last`: it follows the selection rule's metric, and there is none"
        if min(every, epochs) > 1:
            yield f"`scheduler=plateau` with `training.validate_every_epochs={every}`: it follows every epoch; use 1"
        if strategy == "lp_ft":
            yield "`scheduler=plateau` with `strategy=lp_ft`: phases have schedules of their own; use cosine or step"
    if config["pretrain"]["scheduler"]["_target_"].endswith(".Plateau"):
        yield "`scheduler@pretrain.scheduler=plateau`: pretraining selects nothing to follow; use cosine or one_cycle"
    if config.get("bn") == "domain_specific" and config["trainer"].get("sync_batchnorm"):
        yield "`bn=domain_specific` with `trainer.sync_batchnorm=true`: synchronised layers keep one set of statistics"
    if "stochnorm" in (config.get("term") or {}) and config["trainer"].get("sync_batchnorm"):
        yield "`term=stochnorm` with `trainer.sync_batchnorm=true`: synchronising replaces its layers"


def averaging_contradictions(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[str]:
    """Averages of weights that cannot be made, or not chosen on validation."""
    alphas, weights, soup = config["training"]["wise_ft_alphas"], config["backbone"]["weights"], config["soup"]
    if alphas is not None:
        key = f"training.wise_ft_alphas={shown(alphas)}"
        if not alphas or not all(FRACTION.accepts(alpha) for alpha in alphas):
            yield f"`{key}`: must be null or a list of numbers >= 0 and <= 1, such as [0,0.25,0.5,0.75,1]"
        if config["selection"]["_target_"].endswith(".Last"):
            yield f"`{key}` with `selection=last`: there is no metric to choose by; use selection=target_val"
        if weights is None or choices.get("strategy") == "scratch":
            why = "`backbone.weights=null`" if weights is None else "`strategy=scratch`"
            yield f"`{key}` with {why}: it goes from pretrained weights to the tuned ones; give some to start from"
    if config["averaging"].get("lr_fraction") is not None and config["scheduler"]["_target_"].endswith(".Plateau"):
        yield (
            "`scheduler=plateau` with `averaging=swa`: both set the learning rate of the last epochs; "
            "use averaging.lr_fraction=null or another scheduler"
        )
    if soup is not None and config["resume"] is not None:
        yield "`resume` with `soup`: a soup trains nothing that could go on; leave resume out"
    if soup is not None and not Path(soup).is_dir():
        yield f"`soup={soup}`: there is no such folder; give a sweep's, logs/<name>/sweeps/<time>_<id>"


def step_contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """What happens to a training batch (graft.batch) and cannot be meant with the rest."""
    training, task = config["training"], config["task"]["_target_"].rpartition(".")[2]
    alphas = [f"training.{key}={training[key]}" for key in ("mixup_alpha", "cutmix_alpha") if training[key] is not None]
    if alphas and task not in MIXABLE:
        yield (
            f"`{' '.join(alphas)}` with `task={task.lower()}`: mixing needs labels of which a sample can have a part; "
            "use task=multiclass or multilabel"
        )
    if alphas and "bi_tuning" in (config.get("term") or {}):
        yield f"`{' '.join(alphas)}` with `term=bi_tuning`: it needs one class a sample; leave one of the two out"
    if training["compile"] and training["gradient_checkpointing"]:
        yield (
            "`training.compile=true` with `training.gradient_checkpointing=true`: torch cannot compile blocks that are "
            "computed again; use one of the two"
        )
    resizing = training["progressive_resizing"]
    if resizing["initial_scale"] is not None and resizing["growth_begins"] > resizing["full_size_at"]:
        yield (
            f"`training.progressive_resizing.growth_begins={resizing['growth_begins']}` with "
            f"`full_size_at={resizing['full_size_at']}`: images cannot be full before they grow"
        )


def rule_of(key: str) -> Rule | None:
    """The first rule whose pattern matches the key name by name."""
    names = key.split(".")
    for pattern, rule in RULES.items():
        parts = pattern.split(".")
        if len(parts) == len(names) and all(map(fnmatchcase, names, parts)):
            return rule
    return None


def leaves(config: Mapping[str, Any], prefix: str = "", mappings: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is not a mapping, or of the mappings too."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            yield key, value
            continue
        if mappings or not value:
            yield key, value
        yield from leaves(value, f"{key}.", mappings)


def shown(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
