"""One run, from a composed config to results: the only place that knows the order of things."""

import copy
import functools
import math
import pickle
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from graft import registry
from graft.backbones.base import Backbone
from graft.backbones.checkpointing import checkpoint_gradients
from graft.backbones.stochastic_depth import set_stochastic_depth
from graft.build import build
from graft.cache.disk import DiskCache
from graft.cache.features import FeatureCache
from graft.callbacks.checkpoints import Checkpoints
from graft.callbacks.compilation import Compilation
from graft.callbacks.frozen_features import FrozenFeatures
from graft.callbacks.interrupt import keyboard_interrupts
from graft.callbacks.nonfinite import NonFinite
from graft.callbacks.throughput import Throughput
from graft.data.module import TransferDataModule
from graft.data.shared import share_domains
from graft.errors import Diverged, GraftError, Interrupted
from graft.loggers import build as tracking
from graft.module import SHARED, TransferModule
from graft.objectives.base import Objective
from graft.pretrain import pretrain_on_source
from graft.report import plots, tables
from graft.runs import ingredients as recipe
from graft.runs import record as results
from graft.runs.folder import BEST, CHECKPOINTS, MERGED, SOUP, WISE_FT, RunFolder, in_own_folder
from graft.selection.base import SelectionRule, rank, require_domain
from graft.strategies.base import Strategy
from graft.tasks.base import Task
from graft.terms.base import Setup, Term
from graft.training import tuning
from graft.training.batch_transforms import build_batch_transforms
from graft.training.schedules import Tail
from graft.training.trainer import build_trainer, settle_precision
from graft.weights import soup, wise_ft
from graft.weights.averaging import Averaging, network
from graft.weights.loading import load_weights

DEFAULT_THREADS = torch.get_num_threads()
PARTS = ("backbone.", "heads.")


@in_own_folder
def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one experiment and return its results, which are also in `results.json` of the run folder.

    Raises GraftError for a user's mistake and Interrupted after a Ctrl-C, once what was reached is saved.
    """
    started = time.perf_counter()
    config = OmegaConf.to_container(cfg, resolve=True)
    registry.trust(config["allow"])
    if config["soup"]:
        config = recipe.settings(config)
        cfg = OmegaConf.create(config)
    context = job_context()
    folder = Path(config["paths"]["run_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config["training"]["threads"] or threads_of_job())
    config["trainer"]["precision"] = cfg.trainer.precision = settle_precision(config["trainer"])

    pl.seed_everything(config["seed"], verbose=False)
    data: TransferDataModule = build(cfg.data)
    cache = DiskCache(Path(config["paths"]["cache_dir"]) / "computed", int(config["cache"]["limit_gb"] * 2**30))
    data.decoded = cache if config["cache"]["decoded"] else None
    if context["sweep"]:
        share_domains(data, config["data"])
    data.load()
    tasks = build_tasks(cfg, data)
    strategy, objective, rule = build(cfg.strategy), build(cfg.objective), build(cfg.selection)
    averaging: Averaging | None = build(cfg.averaging) if cfg.averaging else None
    choose_domains(data, objective, rule)
    if decided := settings_of_strategy(strategy, cfg, data, tasks["target"]):
        config = apply_settings(cfg, data, decided)
    epochs = config["training"]["epochs"]
    resumed = checkpoint_to_resume(config["resume"], folder, epochs)

    backbone = build_backbone(cfg, data)
    outputs = {domain: data.num_outputs(domain, task) for domain, task in tasks.items()}
    trained = {domain: tasks[domain] for domain in data.train_domains}
    batch_transforms = build_batch_transforms(config["training"], epochs, backbone, trained, outputs)
    tail = averaging.tail(epochs) if averaging else None
    refuse_unsuitable(strategy, backbone, config["training"], tail)
    weights = config["backbone"]["weights"] if strategy.pretrained else None
    weights_report = None if weights in (None, "source") else load_weights(backbone, weights)
    data.set_input(backbone.input_spec)
    heads = build_heads(cfg, data, backbone, tasks, objective)
    pretrained = None
    if objective.fixed_heads and weights != "source":
        raise GraftError(
            f"This objective keeps the {objective.fixed_heads[0]} head as it was pretrained, but nothing is: "
            f"backbone.weights={weights}, strategy={config['strategy']['_target_'].split('.')[-2]}. "
            "Set backbone.weights=source and a strategy that starts from it, or use objective=additive."
        )
    if weights == "source":
        source_head = heads.get("source", heads.get(SHARED))

        def build_both() -> tuple[Backbone, nn.Module]:
            return build_backbone(cfg, data), build_head(cfg, backbone, data.num_outputs("source", tasks["source"]))

        try:
            pretrained = pretrain_on_source(config, data, backbone, source_head, tasks["source"], build_both, cache)
        except Diverged as diverged:
            if rank_zero_only.rank == 0:
                found = {"status": "diverged", "message": str(diverged), "name": config["name"], "metrics": {}}
                results.write(found | {"overrides": context["overrides"], "data": data.summary()}, folder)
            raise
        pl.seed_everything(config["seed"], verbose=False)
    elif "source" in heads and "source" not in data.train_domains:
        data.test_domains = ("target",)  # a source head that never learned has nothing to say about the source
    added = added_parameters(strategy, backbone)
    terms = build_terms(cfg, backbone, heads, data, weights, added)
    if config["training"]["stochastic_depth"] is not None:
        set_stochastic_depth(backbone, config["training"]["stochastic_depth"])  # after what may replace layers

    module = TransferModule(
        backbone=backbone,
        heads=heads,
        tasks=tasks,
        outputs=outputs,
        objective=objective,
        strategy=strategy,
        rates=build(cfg.rates),
        schedule=build(cfg.scheduler),
        optimizer=config["optimizer"],
        terms=terms,
        tail=tail,
        batch_transforms=batch_transforms,
        monitor=rule.monitor(tasks),
        bn=config["bn"],
        class_weights={domain: data.class_weights(domain) for domain in data.train_domains},
        seed=config["seed"],
        config=config,
    )
    require_learned_heads(module, rule, pretrained is not None)
    found = settle(config, module, data, folder, resumed)
    alphas = config["training"]["wise_ft_alphas"]
    pretrained_heads = [name for name in (SHARED, "source") if pretrained and name in heads]
    start = wise_ft.starting_weights(module, pretrained_heads) if alphas else {}
    report = {
        "status": "failed",  # until the end was reached
        "name": config["name"],
        "overrides": context["overrides"],
        "data": data.summary(),
        "weights": results.describe_weights(weights_report, pretrained),
        "parameters": results.describe_parameters(module.parameter_table(epochs)),
        "phases": module.phase_table(epochs),
        "settings": decided,
        "tuning": found,
        "note": strategy.note,
        "averaging": averaging_word(config),
        "precision": config["trainer"]["precision"],
        "threads": torch.get_num_threads(),
        "seeds": {
            "train": config["seed"],
            "split": config["data"]["split_seed"],
            "subset": config["data"]["subset_seed"],
            "pretrain": config["pretrain"]["seed"] if pretrained else None,
        },
        "git": results.git_state(Path(config["paths"]["root"])),
        "versions": results.versions(),
    }
    if config["tune"]:
        return end_of_tuning(report, folder, time.perf_counter() - started)
    loggers = tracking.build_loggers(
        config["logger"],
        run_dir=folder,
        name=config["name"],
        config=config,
        tags=config["tags"],
        group=context["sweep"],
        job_type=cfg.strategy._target_.split(".")[-2],
    )
    throughput = Throughput()
    features = FeatureCache(cache)
    nonfinite = NonFinite(folder, config["training"]["on_nonfinite"])
    watches = [*([averaging] if averaging else []), nonfinite]
    callbacks = [*watches, *build_callbacks(cfg, folder, rule, tasks, averaging, bool(context["sweep"])), throughput]
    if config["cache"]["features"]:
        views, compiles = config["cache"]["augmented_views"], config["training"]["compile"]
        callbacks.insert(0, FrozenFeatures(features, views, averages=averaging is not None, compiles=compiles))
    compilation = Compilation() if config["training"]["compile"] else None
    callbacks += [compilation] if compilation else []
    trainer = build_trainer(config["trainer"], config["training"], epochs, folder, loggers, callbacks)
    if trainer.is_global_zero:
        tables.print_setup(report)

    try:
        tracking.start(loggers)
        with keyboard_interrupts():
            validate = functools.partial(validation_metrics, module, data, config, folder)
            if config["soup"]:
                strategy.merge(module.backbone)
                selected, report["soup"] = make_soup(module, rule, validate, config["soup"], folder)
            else:
                fit(trainer, module, data, resumed)
                selected = load_selected(module, rule, folder, resumed, trainer)
                if strategy.merge(module.backbone):
                    save_network(module, folder, MERGED)
            if alphas:
                metrics, report["wise_ft"] = apply_wise_ft(module, start, alphas, rule, validate, folder)
                selected["metrics"] = metrics
            report["selection"] = results.describe_selection(rule, tasks, selected, data)
            report["metrics"] = selected["metrics"]
            test_started = time.perf_counter()
            report["metrics"] |= test(trainer, module, data)
            report["metrics"] |= results.forgetting(report["metrics"], pretrained, tasks.get("source"))
            report["score"] = results.score(report["metrics"], tasks["target"])
            report["baseline"] = results.baseline(data, tasks["target"], config["seed"])
            report["confusion"] = results.confusion(module, data)
        report["status"] = "done"
    except Interrupted:
        report["status"] = "interrupted"
        raise
    except Diverged as diverged:
        report |= {"status": "diverged", "message": str(diverged)}
        if context["sweep"]:
            drop_last_checkpoint(folder)
        raise Diverged("\n".join([str(diverged), *kept(folder)])) from None
    finally:
        now = time.perf_counter()
        report["time"] = {
            "total_s": now - started,
            "pretrain_s": pretrained.seconds if pretrained else 0.0,
            "fit_s": throughput.fit_s,
            "test_s": now - test_started if report["status"] == "done" else None,
        }
        report["nonfinite"] = nonfinite.describe()
        report["feature_cache"] = features.describe()
        report |= {"samples_per_s": throughput.samples_per_s, "peak_memory_mb": throughput.peak_memory_mb}
        report["compile"] = compilation and compilation.measured
        report["wandb"] = tracking.wandb_info(loggers)
        if trainer.is_global_zero:
            results.write(report, folder)
            tracking.log_results(loggers, report)
        tracking.finish(loggers, ok=report["status"] == "done")

    if trainer.is_global_zero:
        tables.print_results(report, folder)
        if context["sweep"]:
            drop_last_checkpoint(folder)
        else:
            write_plots(report, folder)  # 0.4 s, for which a sweep's jobs are too many
    return report


def kept(folder: Path) -> Iterator[str]:
    """What a training that diverged has left of the time before, and how to use it."""
    best, last = folder / "checkpoints" / BEST, folder / "checkpoints" / "last.ckpt"
    if best.exists():
        yield f"The best weights of before are in {best}"
    if last.exists():
        yield f"To go on from {last} with other settings: resume={last} optimizer.lr=..."


def drop_last_checkpoint(folder: Path) -> None:
    """Of a sweep's finished job keep the tested weights alone: optimizer states of 144 jobs fill a disk."""
    if (folder / "checkpoints" / BEST).exists():
        (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)


def settings_of_strategy(strategy: Strategy, cfg: DictConfig, data: TransferDataModule, task: Task) -> dict[str, Any]:
    """Config keys that the strategy sets from the data: an image size only where the config leaves it open, and MixUp
    only where inputs are images and the task's labels can be mixed, which the strategy's note says.
    """
    decided = strategy.settings(len(data.domains["target"].train), data.image_side)
    if cfg.data.image_size is not None:
        decided.pop("data.image_size", None)
    if not (data.kind == "images" and task.soft_labels) and decided.pop("training.mixup_alpha", None):
        what = f"labels of task={task.name}" if data.kind == "images" else data.kind
        strategy.note = f"without the strategy's MixUp: {what} cannot be mixed"
    return decided


def apply_settings(cfg: DictConfig, data: TransferDataModule, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Put what the strategy set into the config and the data module; returns the resolved config."""
    for key, value in decided.items():
        OmegaConf.update(cfg, key, value)
    data.epoch = cfg.data.epoch
    return OmegaConf.to_container(cfg, resolve=True)


def refuse_unsuitable(strategy: Strategy, backbone: Backbone, training: Mapping[str, Any], tail: Tail | None) -> None:
    """Refuse now what would fail after pretraining: on a copy, so that nothing random is drawn from the run's state."""
    with torch.random.fork_rng(devices=()):
        trial = copy.deepcopy(backbone)
        strategy.prepare(trial)
        phases = strategy.phases(training["epochs"], trial)
        if training["stochastic_depth"] is not None:
            set_stochastic_depth(trial, training["stochastic_depth"])
    if tail:
        tail.check(phases)


def added_parameters(strategy: Strategy, backbone: Backbone) -> frozenset[str]:
    """Let the strategy change the pretrained backbone; returns the names of the parameters that it added."""
    pretrained = {id(parameter) for parameter in backbone.parameters()}
    strategy.prepare(backbone)
    return frozenset(name for name, parameter in backbone.named_parameters() if id(parameter) not in pretrained)


def settle(
    config: dict[str, Any], module: TransferModule, data: TransferDataModule, folder: Path, resumed: Path | None
) -> dict[str, Any]:
    """Put numbers where the config says `auto`: found on a copy, or those of the checkpoint that the run goes on from.

    The learning rate is also looked for where `tune=lr` asks for nothing else.
    """
    stored = torch.load(resumed, map_location="cpu", weights_only=True, mmap=True)["config"] if resumed else None
    found: dict[str, Any] = {}
    if config["data"]["batch_size"] == "auto":
        if stored:
            found["batch_size"] = {"value": stored["data"]["batch_size"], "resumed": True}
        else:
            limit = tuning.batch_size_limit(config, data)
            found["batch_size"] = {"value": tuning.find_batch_size(config, module, data, folder), "limit": limit}
        config["data"]["batch_size"] = data.batch_size = found["batch_size"]["value"]
    if config["optimizer"]["lr"] == "auto" or config["tune"] == "lr":
        if stored:
            found["lr"] = {"value": stored["optimizer"]["lr"], "resumed": True}
        else:
            curve = tuning.lr_range_test(config, module, data, folder)
            found["lr"] = tuning.describe(curve, config["tuning"]["suggestion"])
            if rank_zero_only.rank == 0:
                curve.write_csv(folder / "lr_find.csv")
                plots.range_test(curve, found["lr"]["suggestions"], folder / "lr_find.png")
        config["optimizer"]["lr"] = module.optimizer_config["lr"] = found["lr"]["value"]
    return found


def end_of_tuning(report: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Results of a run that only looked for a learning rate: no metric and no score."""
    report |= {"status": "done", "metrics": {}, "time": {"total_s": seconds}}
    if rank_zero_only.rank == 0:
        results.write(report, folder)
        tables.print_setup(report)
        tables.print_suggestions(report, folder)
    return report


def build_terms(
    cfg: DictConfig,
    backbone: Backbone,
    heads: Mapping[str, nn.Module],
    data: TransferDataModule,
    weights: str | None,
    added: frozenset[str],
) -> dict[str, Term]:
    """The objective's terms, each after its look at the pretrained network; one of weight 0 is left out."""
    terms = {name: build(settings) for name, settings in (cfg.get("term") or {}).items() if settings.get("weight", 1)}
    setup = Setup(
        backbone=backbone,
        heads=heads,
        target_head=heads.get("target", heads.get(SHARED)),
        classifier=backbone.classifier,
        pretrained=weights is not None,
        num_classes=len(classes) if (classes := data.classes("target")) else None,
        samples=lambda: data.plain_batches("target", "train"),
        source_samples=(lambda: data.plain_batches("source", "val")) if weights == "source" else None,
        added_parameters=added,
    )
    for term in terms.values():
        term.prepare(setup)
    return terms


def validation_metrics(
    module: TransferModule, data: TransferDataModule, config: Mapping[str, Any], folder: Path
) -> dict[str, float]:
    """Validation metrics of the weights that are in the module; nothing is logged."""
    settings = {**config["trainer"], "profiler": None}
    trainer = build_trainer(settings, config["training"], config["training"]["epochs"], folder, [], [])
    trainer.validate(module, data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def apply_wise_ft(
    module: TransferModule,
    start: Mapping[str, Tensor],
    alphas: Sequence[float],
    rule: SelectionRule,
    validate: Callable[[], dict[str, float]],
    folder: Path,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Leave the best weights between `start` and the tuned ones in the module; their metrics, and what was tried."""
    monitor, higher_is_better = rule.monitor(module.tasks), module.tasks[rule.domain].higher_is_better
    values, best, metrics = wise_ft.choose(module, start, alphas, validate, monitor, higher_is_better)
    save_network(module, folder, WISE_FT)
    tried = [{"alpha": alpha, "value": value} for alpha, value in values.items()]
    return metrics, {"monitor": monitor, "alpha": best, "tried": tried}


def make_soup(
    module: TransferModule, rule: SelectionRule, validate: Callable[[], dict[str, float]], sweep: str, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave the better soup of a sweep's jobs in the module; what was selected, and what it was selected among."""
    ingredients, tested = recipe.read_ingredients(Path(sweep), module.config["allow"]), network(module)
    monitor, higher_is_better = rule.monitor(module.tasks), module.tasks[rule.domain].higher_is_better

    def evaluate(weights: Mapping[str, Tensor]) -> dict[str, float]:
        tested.load_state_dict(weights)
        return validate()

    loads = {one.name: functools.partial(tested_weights, one, tested.state_dict()) for one in ingredients}
    made = soup.cook(loads, evaluate, monitor, higher_is_better)
    tested.load_state_dict(made.weights)
    save_network(module, folder, SOUP)
    report = {
        "folder": sweep,
        "monitor": monitor,
        "chosen": made.kind,
        "uniform": made.uniform,
        "greedy": made.greedy,
        "members": made.members,
        "ingredients": made.ingredients,
        "label_subsets": recipe.label_subsets(ingredients),
    }
    return {"epoch": None, "metrics": made.metrics, "rule": rule.name}, report


def tested_weights(ingredient: recipe.Ingredient, network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Backbone and heads that a finished run tested; GraftError where they are gone or do not fit the network."""
    checkpoints = ingredient.folder / "checkpoints"
    plain = WISE_FT if ingredient.config["training"]["wise_ft_alphas"] else MERGED
    file = checkpoints / plain if (checkpoints / plain).is_file() else checkpoints / BEST
    if not file.is_file():
        raise GraftError(f"soup: {ingredient.name} has no {file}. Run the job again, or delete its folder.")
    content = torch.load(file, map_location="cpu", weights_only=True)
    if file.name == BEST:
        of_run(content, file, RunFolder(ingredient.folder).checkpoint_ids)
    parts = {f"{part}.{name}": v for part in ("backbone", "heads") for name, v in content.get(part, {}).items()}
    weights = {name: value for name, value in content.get("state_dict", parts).items() if name.startswith(PARTS)}
    if different := [name for name in {**weights, **network} if shape(weights, name) != shape(network, name)]:
        raise GraftError(
            f"soup: {ingredient.name} has another network than the first job; {len(different)} tensors differ, "
            f"{different[0]} first. Delete its folder to leave it out."
        )
    return weights


@rank_zero_only
def save_network(module: TransferModule, folder: Path, name: str) -> None:
    """Backbone and heads as plain weights, for `backbone.weights=<file>` and for soups."""
    file = folder / "checkpoints" / name
    file.parent.mkdir(exist_ok=True)
    torch.save({"backbone": module.backbone.state_dict(), "heads": module.heads.state_dict()}, file)


def threads_of_job() -> int:
    """Torch's own choice, or a share of the cores where hydra/launcher=joblib runs jobs side by side."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return DEFAULT_THREADS
    launcher = HydraConfig.get().launcher
    if not launcher._target_.endswith(".JoblibLauncher"):
        return DEFAULT_THREADS
    import joblib

    cores, jobs = joblib.cpu_count(), launcher.n_jobs  # joblib counts the cores that this process may use
    return max(1, cores // max(1, jobs if jobs > 0 else cores + 1 + jobs))


def job_context() -> dict[str, Any]:
    """Overrides of this job and the sweep it belongs to, as Hydra knows them; empty when called from a notebook."""
    if not HydraConfig.initialized():
        return {"overrides": [], "sweep": None}
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    return {"overrides": OmegaConf.to_container(hydra.overrides.task, resolve=False), "sweep": sweep}


def write_plots(report: Mapping[str, Any], folder: Path) -> None:
    """Confusion matrices and training curves as pictures in the run folder."""
    for name, confusion in report["confusion"].items():
        path = folder / f"confusion_{name.replace('/', '_')}.png"
        plots.confusion_matrix(confusion["matrix"], confusion["classes"], path)
    plots.curves(folder / "metrics.csv", folder / "curves.png")


def checkpoint_to_resume(resume: bool | str | None, folder: Path, epochs: int) -> Path | None:
    """The checkpoint that `resume` names: this run folder's last one, or a path."""
    if resume in (None, False):
        return None
    checkpoint = folder / "checkpoints" / "last.ckpt" if resume is True else Path(resume)
    if not checkpoint.is_file():
        raise GraftError(
            f"resume={resume}: there is no checkpoint at {checkpoint}. Give the path of a .ckpt file, or name the "
            "folder of the run to go on with: resume=true hydra.run.dir=logs/<name>/runs/<time>_<id>"
        )
    try:
        content = load_checkpoint(checkpoint)
        done = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    except (KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
        raise GraftError(
            f"resume={checkpoint}: this is no checkpoint of a training run. To start from its weights, use "
            f"backbone.weights={checkpoint}."
        ) from None
    if done > epochs:  # as many are fine: a run that was stopped after its last epoch has only its test to do
        raise GraftError(
            f"resume={checkpoint}: it has trained {done} epochs already, more than training.epochs={epochs}. "
            f"Set training.epochs={done + 1} or more."
        )
    if resume is True:
        of_run(content, checkpoint, RunFolder(folder).checkpoint_ids)
    best_checkpoints(folder, checkpoint)  # refuses before training what could not be selected after it
    return checkpoint


def fit(trainer: pl.Trainer, module: TransferModule, data: TransferDataModule, resumed: Path | None) -> None:
    """Train, from the checkpoint to resume where there is one."""
    if resumed is not None:
        content = torch.load(resumed, map_location="cpu", weights_only=True, mmap=True)
        if "averaging" in content and (began := averaging_word(content["config"])) != averaging_word(module.config):
            raise GraftError(
                f"resume={resumed}: it was trained with averaging={began} and goes on with that only, not with "
                f"averaging={averaging_word(module.config)}. To start from the average: backbone.weights={resumed}"
            )
        stored = content["state_dict"]
        present = module.state_dict()
        different = [name for name in {**stored, **present} if shape(stored, name) != shape(present, name)]
        if different:
            raise GraftError(
                f"resume={resumed}: it is of another network; {len(different)} tensors differ, {different[0]} first. "
                "Resume with the configuration it was trained with, or start from its weights: "
                f"backbone.weights={resumed}"
            )
    trainer.fit(module, data, ckpt_path=resumed, weights_only=True)


def test(trainer: pl.Trainer, module: TransferModule, data: TransferDataModule) -> dict[str, float]:
    """Test metrics as they are, then of the target under each shift: `test/target_<shift>/<metric>`."""
    trainer.test(module, data, verbose=False)
    confusion = dict(module.confusion)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    for shift in data.test_shifts:
        data.test_shift = shift
        trainer.test(module, data, verbose=False)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test/target/"):
                metrics[name.replace("target", f"target_{shift}")] = float(value)
    module.confusion = confusion
    return metrics


def averaging_word(config: Mapping[str, Any]) -> str:
    """How a run averages weights, as the word of its config."""
    return config["averaging"].get("_target_", "none").split(".")[-1].lower()


def shape(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Size | None:
    """Shape of a named tensor, None where there is none."""
    return tensors[name].shape if name in tensors else None


def require_learned_heads(module: TransferModule, rule: SelectionRule, pretrained: bool) -> None:
    """Refuse to score, or select by, a head that nothing trains."""
    learned = {*module.trained_heads(), *(["source"] if pretrained else [])}
    for domain in {"target", rule.domain} - {None}:
        if SHARED not in module.heads and domain not in learned:
            raise GraftError(
                f"Nothing trains the {domain}'s head: its loss has no weight in the objective and its head is "
                f"separate. Give the {domain} weight (objective.alpha), share the head (head.sharing=shared, which "
                "needs the same classes on both sides), or use another selection rule."
            )


def build_tasks(cfg: DictConfig, data: TransferDataModule) -> dict[str, Task]:
    """What is predicted on each domain that has data."""
    tasks = {"target": build(cfg.task)}
    if "source" in data.domains:
        tasks["source"] = build(cfg.source_task or cfg.task)
    for domain, task in tasks.items():
        if (labels := data.domains[domain].train.labels) is not None:
            task.fit(labels)
    return tasks


def choose_domains(data: TransferDataModule, objective: Objective, rule: SelectionRule) -> None:
    """Load only the domains that the objective trains on, and validate on those, the target and the rule's."""
    require_domain(rule, tuple(data.domains))
    missing = [domain for domain in objective.domains() if domain not in data.domains]
    if missing:
        raise GraftError(
            f"The objective weighs the {missing[0]}'s loss, but data.{missing[0]} is null. "
            "Set objective.alpha=0 or choose source data with data/domain@data.source=<name>."
        )
    data.train_domains = objective.domains()
    needed = {"target", rule.domain, *data.train_domains}
    data.eval_domains = tuple(domain for domain in data.domains if domain in needed)


def build_backbone(cfg: DictConfig, data: TransferDataModule) -> Backbone:
    """The backbone with random weights, made for the data where the config says `auto`.

    Pretraining is checkpointed like the training itself: that changes what it costs and not what it computes.
    Raises GraftError where the backbone takes another kind of input than the data have.
    """
    settings = {key: value for key, value in cfg.backbone.items() if key != "weights"}
    left_open = [key for key, value in settings.items() if value == "auto"]
    if unknown := [key for key in left_open if key not in data.backbone_arguments]:
        raise GraftError(
            f"backbone.{unknown[0]}=auto: the target holds {data.kind}, which do not say it. "
            "Choose a backbone for them: backbone=<option>, see `python train.py --help`."
        )
    backbone = build(settings, **{key: data.backbone_arguments[key] for key in left_open})
    if backbone.kind != data.kind:
        raise GraftError(
            f"backbone.name={backbone.name} takes {backbone.kind}, but the target holds {data.kind}. "
            "Choose a backbone for them: backbone=<option>, see `python train.py --help`."
        )
    if cfg.training.gradient_checkpointing:
        checkpoint_gradients(backbone)
    return backbone.to(memory_format=torch.channels_last) if cfg.training.channels_last else backbone


def build_heads(
    cfg: DictConfig,
    data: TransferDataModule,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    objective: Objective,
) -> dict[str, nn.Module]:
    """One head `shared` by domains with the same classes, else one for each; a fixed head is never shared."""
    sharing = cfg.head.sharing
    if sharing == "auto":
        sharing = "shared" if data.same_classes and not objective.fixed_heads else "separate"
    if sharing == "shared" and objective.fixed_heads:
        raise GraftError(
            f"head.sharing=shared: this objective keeps the {objective.fixed_heads[0]} head fixed and trains the "
            "other. Use head.sharing=separate."
        )
    if sharing == "shared" and "source" in data.domains and not data.same_classes:
        classes = {domain: data.domains[domain].classes for domain in ("source", "target")}
        raise GraftError(
            f"head.sharing=shared needs the same classes on both sides, but the source has {classes['source']} "
            f"and the target {classes['target']}. Use head.sharing=separate."
        )
    names = {SHARED: "target"} if sharing == "shared" and "source" in data.domains else {d: d for d in tasks}
    return {name: build_head(cfg, backbone, data.num_outputs(domain, tasks[domain])) for name, domain in names.items()}


def build_head(cfg: DictConfig, backbone: Backbone, outputs: int) -> nn.Module:
    """A new head on the backbone's features."""
    settings = {key: value for key, value in cfg.head.items() if key != "sharing"}
    return build(settings, feature_size=backbone.feature_size, outputs=outputs)


def build_callbacks(
    cfg: DictConfig,
    folder: Path,
    rule: SelectionRule,
    tasks: Mapping[str, Task],
    averaging: Averaging | None,
    in_sweep: bool,
) -> list[Callback]:
    """The config's callbacks, and the checkpoints: the rule's choice, and where to resume from.

    Of a sweep's finished job the tested weights are kept alone, see drop_last_checkpoint.
    """
    callbacks = [build(settings) for settings in cfg.callbacks.values() if settings]
    monitor = rule.monitor(tasks)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        monitor,
        higher_is_better=monitor is None or tasks[rule.domain].higher_is_better,
        ready=(lambda: averaging.started) if averaging else (lambda: True),
        keep_last=monitor is None or not in_sweep,
        run_id=RunFolder(folder).run_id,
    )
    return [*callbacks, checkpoints]


def load_selected(
    module: TransferModule, rule: SelectionRule, folder: Path, resumed: Path | None, trainer: pl.Trainer
) -> dict[str, Any]:
    """Put the selected checkpoint's weights into the module; returns its epoch and validation metrics.

    A run that resumed another folder's checkpoint selects among that folder's best and its own.
    """
    candidates = best_checkpoints(folder, resumed)
    if rule.domain is None or not candidates:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        return {"epoch": trainer.current_epoch - 1, "metrics": metrics, "rule": "last"}
    monitor, higher_is_better = rule.monitor(module.tasks), module.tasks[rule.domain].higher_is_better
    best = max(candidates, key=lambda checkpoint: rank(checkpoint["metrics"].get(monitor, math.nan), higher_is_better))
    module.load_state_dict(best["state_dict"])
    return {"epoch": best["epoch"], "metrics": best["metrics"], "rule": rule.name}


def best_checkpoints(folder: Path, resumed: Path | None) -> list[dict[str, Any]]:
    """The best weights of this run and of the one that it resumed; GraftError where a file there is of another run."""
    places = {folder / CHECKPOINTS: RunFolder(folder).checkpoint_ids}
    if resumed and resumed.parent not in places:
        other = RunFolder(resumed.parent.parent).record
        of_resumed = load_checkpoint(resumed).get("run_id")
        places[resumed.parent] = {of_resumed, None} if other and other.adopted else {of_resumed}
    files = {checkpoints / BEST: ids for checkpoints, ids in places.items()}
    return [of_run(load_checkpoint(file), file, ids) for file, ids in files.items() if file.is_file()]


def load_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content; of its tensors no more is read than is used."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def of_run(content: dict[str, Any], file: Path, ids: Collection[str | None]) -> dict[str, Any]:
    """The content of a checkpoint of one of these runs; GraftError where it is of another."""
    if content.get("run_id") not in ids:
        raise GraftError(
            f"{file} is of another run ({content.get('run_id') or 'without an id'}) than its folder "
            f"({' or '.join(one or 'without an id' for one in ids)}): it was put there by hand or by another process. "
            "Move it away, or train in a new folder."
        )
    return content
