"""From one resolved config to everything that a run needs: built, and not trained."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from graft import registry
from graft.backbones.base import Backbone
from graft.backbones.stochastic_depth import set_stochastic_depth
from graft.baselines.plan import chosen_names
from graft.baselines.scores import scores
from graft.build import build
from graft.cache.disk import DiskCache
from graft.cache.once import TrainingSamples
from graft.compress.base import Compression, CompressionContext
from graft.config.facts import attribute
from graft.data.boxes import Boxes
from graft.data.module import TransferDataModule
from graft.data.shared import share_domains
from graft.data.slices import check_slices
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.federated.base import Federated
from graft.federated.clients import divide
from graft.federated.federation import Federation
from graft.heads.base import SHARED
from graft.heads.class_names import ClassNamesHead
from graft.model.heads import FirstOutputs, LearnedHead, read_head
from graft.module import TransferModule
from graft.network import build_backbone, build_heads
from graft.objectives.base import Objective
from graft.pretrain import flops_of_pretraining, keeps_source_head, pretraining_data
from graft.runs.context import threads_of_job
from graft.selection.base import SelectionRule, check_rule
from graft.strategies.base import Strategy
from graft.tasks.base import Task
from graft.tasks.multiclass import Multiclass
from graft.terms.base import Term, TermContext, trained_domains
from graft.terms.setup import build_terms, check_unmixed, choose_views
from graft.training import flops
from graft.training.batch_transforms import build_batch_transforms
from graft.training.growth import Growth
from graft.training.lightning import is_rank_zero
from graft.training.schedules import AveragingWindow
from graft.training.source_encoder import add_source_encoder
from graft.training.trainer import check_accelerator, first_device, resolve_precision
from graft.transferability.layers import LayerChoice, choose_layer
from graft.weights.averaging import Averaging, GreedySoup
from graft.weights.embedding import embedding_of, load_embedding
from graft.weights.files import HERE, shares_embedding
from graft.weights.loading import LoadReport, load_weights
from graft.weights.swad import SWAD

SAMPLES_AT_ONCE = 32  # that a compression looks at


@dataclass
class Experiment:
    """What a config names. `module` is whole once `prepare` has seen the pretrained weights."""

    config: dict[str, Any]  # plain and resolved, with what the strategy decided from the data
    data: TransferDataModule
    module: TransferModule
    rule: SelectionRule
    averaging: Averaging | None
    cache: DiskCache
    decided: dict[str, Any] = field(default_factory=dict)  # config keys that the strategy set from the data
    loaded: LoadReport | None = None  # of weights that came from a file or a library
    greedy_soup: GreedySoup | None = None  # of the run's best epochs
    swad: SWAD | None = None  # of the steps in a window of its epochs
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)  # see graft.baselines.scores
    pretrained: Any = None  # a graft.pretrain.Pretrained, where the run itself pretrains
    added: frozenset[str] = frozenset()  # names of the parameters that the strategy added to the backbone
    unprepared: TransferModule | None = None  # pretrained, for folds that begin as the run does
    growth: Growth | None = None  # where a finished run's head gets new classes
    layer_choice: LayerChoice | None = None  # of backbone.layer=auto

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config["paths"]["run_dir"])

    @property
    def weights(self) -> str | None:
        """Where the backbone's weights come from; None for random ones."""
        return self.config["backbone"]["weights"] if self.module.strategy.pretrained else None

    @property
    def epochs(self) -> int:
        """Epochs of the fit."""
        return self.config["training"]["epochs"]


def assemble(config: Mapping[str, Any], *, share_data: bool = False) -> Experiment:
    """Build what a resolved config names and train nothing; `share_data` reads domains once for a sweep's jobs.

    Weights from files and libraries are loaded. Those that pretraining on the source gives are not: `pretrain` and
    `prepare` follow. Raises GraftError for a user's mistake.
    """
    config = own = copy.deepcopy(dict(config))
    registry.trust(config["allow"])
    torch.set_num_threads(config["training"]["threads"] or threads_of_job())
    check_accelerator(config["trainer"]["accelerator"])
    config["trainer"]["precision"] = resolve_precision(config["trainer"])
    pl.seed_everything(config["seed"], verbose=False)
    cache = DiskCache(Path(config["paths"]["cache_dir"]) / "computed", int(config["cache"]["limit_gb"] * 2**30))
    learned_head = head_of_run(config)
    data = build_data(config, cache, share_data)
    growth = grow_classes(config, data, learned_head)
    check_slices(config["report"]["slices"], data.domains["target"])
    tasks = build_tasks(config, data)
    strategy, objective, rule = build(config["strategy"]), build(config["objective"]), build(config["selection"])
    averages = build(config["averaging"]) if config["averaging"] else None
    averaging = averages if isinstance(averages, Averaging) else None
    compression: Compression | None = build(config["compress"]) if config["compress"] else None
    federated: Federated | None = build(config["federated"]) if config.get("federated") else None
    # Those of the compression first: they look at what the backbone's last forward put out
    terms = (compression.terms() if compression else {}) | build_terms(config)
    check_rule(rule, tasks)
    rule.check(data)
    baseline_names(config, data, strategy)
    choose_domains(data, objective, rule, terms, keeps_ledger=config["save"]["ledger"] is not None)
    if growth:
        compare_trained_classes(data, tasks)
    decided = settings_of_strategy(strategy, config, data, tasks["target"])
    set_keys(own, decided)
    data.epoch = config["data"]["epoch"]
    if federated:
        data.federation = build_federation(config, federated, data)

    choice = choose_layer(config, data, tasks["target"], cache) if config["backbone"].get("layer") == "auto" else None
    if choice:
        set_keys(own, {"backbone.layer": choice.layer})
    epochs = config["training"]["epochs"]
    backbone = build_backbone(config, data)
    for task in tasks.values():
        task.see_backbone(backbone)
    num_outputs = {domain: data.num_outputs(domain, task) for domain, task in tasks.items()}
    trained = {domain: tasks[domain] for domain in data.train_domains}
    batch_transforms = build_batch_transforms(config["training"], epochs, backbone, trained, num_outputs)
    window = averaging.window(epochs) if averaging else None
    check_suitable(strategy, backbone, config["training"], window)
    if compression:
        compression.check(backbone, strategy)
    weights = config["backbone"]["weights"] if strategy.pretrained else None
    loaded = load_backbone(config, backbone, weights, data.train_domains, strategy)
    choose_views(data, terms, backbone, mixes=bool(batch_transforms))
    check_unmixed(terms, config["training"])
    data.set_input(backbone.input_spec)
    heads = build_heads(config, data, backbone, tasks, objective)
    learned = weights == "source" and keeps_source_head(config)
    if learned_head is not None:
        fill_head(heads[SHARED] if SHARED in heads else heads["target"], learned_head, growth, data, backbone)
    named = learned_head is not None and isinstance(heads.get("source"), ClassNamesHead)
    if learned_head is not None and named:
        learned_head.fill(heads["source"], data.classes("source"))
    check_fixed_heads(config, objective, weights if learned or weights != "source" else None)
    if "source" in heads and "source" not in objective.domains() and not (learned or named):
        data.test_domains = ("target",)  # a source head that never learned has nothing to say about the source
    module = TransferModule(
        backbone=backbone,
        heads=heads,
        tasks=tasks,
        num_outputs=num_outputs,
        objective=objective,
        strategy=strategy,
        rates=build(config["rates"]),
        schedule=build(config["scheduler"]),
        optimizer=config["optimizer"],
        terms=terms,
        window=window,
        batch_transforms=batch_transforms,
        rule=rule,
        bn=config["bn"],
        class_weights={domain: data.class_weights(domain) for domain in data.train_domains},
        seed=config["seed"],
        config=config,
        compression=compression,
        weight_clip=config["training"].get("weight_clip"),
    )
    if strategy.matches_flops:
        decided["data.epoch"] = data.epoch = steps_of_transfer(config, data, module)
        set_keys(own, decided)
    check_learned_heads(module, rule, learned, learned_head is not None)
    experiment = Experiment(own, data, module, rule, averaging, cache, decided, loaded, growth=growth)
    experiment.layer_choice = choice
    experiment.greedy_soup = averages if isinstance(averages, GreedySoup) else None
    if isinstance(averages, SWAD):
        averages.find_domain(data.domains["target"].train.labels is not None)
        experiment.swad = averages
    with torch.random.fork_rng(devices=()):  # a loader of samples draws a seed
        for term in terms.values():
            term.check(term_context(experiment, frozenset()))
    return experiment


def score_baselines(experiment: Experiment) -> None:
    """Score what anybody would try first, with the backbone as it is before training; on the main process alone."""
    config, backbone = experiment.config, experiment.module.backbone
    names = baseline_names(config, experiment.data, experiment.module.strategy)
    if not names or not is_rank_zero():
        return
    cache = experiment.cache if config["cache"]["features"] else DiskCache(experiment.cache.folder, 0)
    pretrained = None if experiment.weights is None else backbone.to(first_device(config["trainer"]))
    try:
        experiment.baselines = scores(experiment.data, experiment.module.tasks["target"], pretrained, cache, names)
    finally:
        backbone.to("cpu")


def score_before_growth(experiment: Experiment) -> None:
    """Count what a network whose head has grown got right before it trains on; on the main process alone."""
    if experiment.growth is not None and is_rank_zero():
        experiment.growth.measure(experiment.module, experiment.data, first_device(experiment.config["trainer"]))


def prepare(experiment: Experiment, compressed: Mapping[str, Any] | None = None) -> None:
    """Let strategy, compression and terms see the pretrained weights: adapters are added, frozen copies taken.

    `compressed` is the state of the compression in the checkpoint that the run goes on from.
    """
    config, module = experiment.config, experiment.module
    if experiment.rule.holds_out:
        experiment.unprepared = copy.deepcopy(module)
    experiment.added = added_parameters(module.strategy, module.backbone)
    with torch.random.fork_rng(devices=()):  # a loader of samples draws a seed
        module.compression.prepare(compression_context(experiment), compressed)
    context = term_context(experiment, experiment.added)
    for term in module.terms.values():
        term.prepare(context)
    if config["training"]["stochastic_depth"] is not None:
        set_stochastic_depth(module.backbone, config["training"]["stochastic_depth"])  # after what may replace layers
    module.start_source_statistics()


# Data, tasks and what the strategy decides from them


def build_data(config: Mapping[str, Any], cache: DiskCache, share: bool) -> TransferDataModule:
    """The data module with its domains read."""
    data: TransferDataModule = build(config["data"])
    data.decoded = cache if config["cache"]["decoded"] else None
    data.names_suffice = attribute(config["head"][registry.TARGET], "names_classes", False)
    if share:
        share_domains(data, config["data"])
    data.load()
    return data


def build_federation(config: Mapping[str, Any], method: Federated, data: TransferDataModule) -> Federation:
    """Clients that take turns in this process, or over a network the server or one client."""
    target, batch_size = data.domains["target"], data.batch_sizes["target"]
    if config.get("federate"):
        return build(config["federate"]).federation(method, target, batch_size, config)
    return Federation(method, divide(method, target), batch_size, config["seed"])


def load_backbone(
    config: Mapping[str, Any], backbone: Backbone, weights: str | None, domains: tuple[str, ...], strategy: Strategy
) -> LoadReport | None:
    """Load what the config takes of pretrained weights, if they are from elsewhere, and let joint domains share it.

    Raises GraftError for weights that do not fit, and for a backbone without what is to be shared.
    """
    elsewhere = weights not in (None, *HERE)
    if not shares_embedding(config["backbone"]):
        return load_weights(backbone, str(weights)) if elsewhere else None
    embedding_of(backbone)
    loaded = load_embedding(backbone, str(weights)) if elsewhere else None
    if "source" in domains:
        if type(strategy).prepare is not Strategy.prepare:
            raise GraftError(
                "backbone.share=embedding in joint training: this strategy changes layers, and the source has layers "
                "of its own. Use strategy=full or scratch, or set objective.alpha=0."
            )
        add_source_encoder(backbone)
    return loaded


def head_of_run(config: Mapping[str, Any]) -> LearnedHead | None:
    """The finished run's head that the config begins with; GraftError for one that cannot grow as it asks."""
    settings = config["head"]
    if settings.get("weights") is None:
        return None
    found = read_head(settings["weights"])
    if settings.get("grow"):
        found.check_can_grow(settings, config["task"])
    return found


def grow_classes(config: Mapping[str, Any], data: TransferDataModule, learned: LearnedHead | None) -> Growth | None:
    """Let the data have the classes of a head that grows; None where none does."""
    if learned is None or not config["head"].get("grow"):
        return None
    assert learned.classes is not None  # checked as it was read
    data.grow_classes(learned.classes, f"head.grow=true with head.weights={learned.run}")
    return Growth(learned.run, learned.classes)


def compare_trained_classes(data: TransferDataModule, tasks: Mapping[str, Task]) -> None:
    """Let the loss compare only classes of which there are training samples.

    A softmax over all would push the outputs of old classes that have none further down in every step, until none of
    them is ever predicted. LwF cannot hold them: it compares old outputs with each other (Masana et al., TPAMI 2022).
    """
    labels = [labels for domain in data.train_domains if (labels := data.domains[domain].train.labels) is not None]
    trained = torch.cat(labels).unique().tolist()
    for task in tasks.values():
        if isinstance(task, Multiclass):
            task.loss_classes = trained


def fill_head(
    head: nn.Module, learned: LearnedHead, growth: Growth | None, data: TransferDataModule, backbone: Backbone
) -> None:
    """Put a finished run's weights into the target's head; of one that grows, the old head counts as pretrained."""
    if growth is None:
        learned.fill(head, data.classes("target"))
        return
    learned.fill_rows(head)
    backbone.set_pretrained_head(FirstOutputs(copy.deepcopy(head), len(growth.old)))


def baseline_names(config: Mapping[str, Any], data: TransferDataModule, strategy: Strategy) -> list[str]:
    """The baselines that the config asks for; GraftError for one that does not suit the data."""
    pretrained = strategy.pretrained and config["backbone"]["weights"] is not None
    return chosen_names(config["baselines"], data, same_task=config["source_task"] is None, pretrained=pretrained)


def build_tasks(config: Mapping[str, Any], data: TransferDataModule) -> dict[str, Task]:
    """What is predicted on each domain that has data."""
    tasks = {"target": build(config["task"])}
    if "source" in data.domains:
        tasks["source"] = build(config["source_task"] or config["task"]).closed()
    for domain, task in tasks.items():
        classes, own = data.classes(domain), data.domains[domain].label_set
        if isinstance(task, Multiclass) and classes and own:
            task.scored = [number for number, name in enumerate(classes) if name in own]
        if isinstance(labels := data.domains[domain].train.labels, Tensor | Boxes | TargetTexts):
            task.fit(labels)
    return tasks


def choose_domains(
    data: TransferDataModule, objective: Objective, rule: SelectionRule, terms: Mapping[str, Term], keeps_ledger: bool
) -> None:
    """Load only the domains that objective and terms train on, and validate on those, the target and the rule's.

    A ledger has scores of all rules, so that it validates on every domain.
    """
    for name, term in terms.items():
        if missing := [domain for domain in term.domains if domain not in data.domains]:
            raise GraftError(
                f"term.{name} trains on the {missing[0]} too, but data.{missing[0]} is null. Choose source data with "
                "data/domain@data.source=<name>, or leave the term out."
            )
    missing = [domain for domain in objective.domains() if domain not in data.domains]
    if missing:
        raise GraftError(
            f"The objective weighs the {missing[0]}'s loss, but data.{missing[0]} is null. "
            "Set objective.alpha=0 or choose source data with data/domain@data.source=<name>."
        )
    data.train_domains = trained_domains(objective, terms)
    needed = {*data.domains} if keeps_ledger else {"target", *rule.domains, *data.train_domains}
    data.eval_domains = tuple(
        name for name, one in data.domains.items() if name in needed and len(one.val) and one.val.labels is not None
    )


def settings_of_strategy(
    strategy: Strategy, config: Mapping[str, Any], data: TransferDataModule, task: Task
) -> dict[str, Any]:
    """Config keys that the strategy sets from the data: an image size only where the config leaves it open, and MixUp
    only where inputs are images and the task's labels can be mixed, which the strategy's note says.
    """
    decided = strategy.settings(data.samples_to_train, data.image_side)
    if config["data"]["image_size"] is not None:
        decided.pop("data.image_size", None)
    if "data.image_size" in decided and config["backbone"].get("size", 0) is None:
        decided["backbone.size"] = decided["data.image_size"]
    if not (data.modality == "image" and task.soft_labels) and decided.pop("training.mixup_alpha", None):
        what = f"labels of task={task.name}" if data.modality == "image" else f"{data.modality} data"
        strategy.note = f"without the strategy's MixUp: {what} cannot be mixed"
    return decided


def steps_of_transfer(config: Mapping[str, Any], data: TransferDataModule, module: TransferModule) -> int:
    """Steps an epoch with which the module's training takes the FLOPs of pretraining and of its own."""
    epochs, heads = config["training"]["epochs"], {domain: module.head(domain) for domain in data.train_domains}
    one_step = copy.copy(data)
    one_step.epoch = 1
    weights = config["backbone"]["weights"]
    inputs = pretraining_data(data, weights)
    pretraining = flops_of_pretraining(config, inputs, module.backbone, module.head(weights))
    phases = module.phases(epochs)
    training, steps = (flops.of_fit(module.backbone, heads, phases, one) for one in (data, one_step))
    return max(1, round((pretraining + training) / steps))


def set_keys(config: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set dotted keys of a config."""
    for key, value in values.items():
        *groups, name = key.split(".")
        holder = config
        for group in groups:
            holder = holder[group]
        holder[name] = value


# Terms


def term_context(experiment: Experiment, added: frozenset[str]) -> TermContext:
    """What terms can ask for before training; `added` are names of parameters that the strategy added."""
    module, data = experiment.module, experiment.data
    weights = experiment.weights
    changing = data.augment != "none" or module.batch_transforms
    fixed = TrainingSamples(data, experiment.cache, first_device(experiment.config["trainer"]))
    return TermContext(
        backbone=module.backbone,
        heads=dict(module.heads.items()),
        target_head=module.head("target"),
        pretrained_head=module.backbone.pretrained_head,
        pretrained=weights is not None,
        num_classes=len(classes) if (classes := data.classes("target")) else None,
        samples=lambda: data.plain_batches("target", "train"),
        source_samples=(lambda: data.plain_batches("source", "val")) if weights == "source" else None,
        sources=data.domains["source"].train.sources if "source" in data.domains else None,
        source_loss=functools.partial(module.domain_loss, "source") if "source" in data.domains else None,
        added_parameters=added,
        task=module.tasks["target"],
        classes=data.classes("target"),
        reading=data.domains["target"].reading,
        domains=data.domains,
        fixed_samples=None if changing else fixed,
        old_outputs=len(experiment.growth.old) if experiment.growth else None,
    )


def compression_context(experiment: Experiment) -> CompressionContext:
    """What the compression can ask for before training."""
    module, data = experiment.module, experiment.data
    phases = module.strategy.phases(experiment.epochs, module.backbone)
    return CompressionContext(
        backbone=module.backbone,
        heads=dict(module.heads.items()),
        target_head=module.head("target"),
        epochs=experiment.epochs,
        trained=frozenset().union(*(phase.parameters for phase in phases)),
        samples=lambda number: data.drawn_batches("target", number, SAMPLES_AT_ONCE),
        loss=functools.partial(module.domain_loss, "target"),
    )


def added_parameters(strategy: Strategy, backbone: Backbone) -> frozenset[str]:
    """Let the strategy change the pretrained backbone; returns the names of the parameters that it added."""
    pretrained = {id(parameter) for parameter in backbone.parameters()}
    strategy.prepare(backbone)
    return frozenset(name for name, parameter in backbone.named_parameters() if id(parameter) not in pretrained)


# What cannot go together, refused before anything is pretrained


def check_suitable(
    strategy: Strategy, backbone: Backbone, training: Mapping[str, Any], window: AveragingWindow | None
) -> None:
    """Refuse now what would fail after pretraining: on a copy, so that nothing random is drawn from the run's state.

    What changes nothing needs no copy, which takes seconds for a table of 10,000 columns.
    """
    changes = type(strategy).prepare is not Strategy.prepare or training["stochastic_depth"] is not None
    with torch.random.fork_rng(devices=()):
        trial = copy.deepcopy(backbone) if changes else backbone
        strategy.prepare(trial)
        phases = strategy.phases(training["epochs"], trial)
        if training["stochastic_depth"] is not None:
            set_stochastic_depth(trial, training["stochastic_depth"])
    if window:
        window.check(phases)


def check_fixed_heads(config: Mapping[str, Any], objective: Objective, weights: str | None) -> None:
    """Refuse an objective that keeps a pretrained head where nothing pretrains one."""
    if objective.fixed_heads and weights != "source":
        raise GraftError(
            f"This objective keeps the {objective.fixed_heads[0]} head as it was pretrained, but nothing is: "
            f"backbone.weights={weights}, strategy={config['strategy']['_target_'].split('.')[-2]}. "
            "Set backbone.weights=source and a strategy that starts from it, or use objective=additive."
        )


def check_learned_heads(module: TransferModule, rule: SelectionRule, pretrained: bool, loaded: bool) -> None:
    """Refuse to score, or select by, a head that nothing trains, and to keep one that has not learned."""
    begins_trained = {*(["source", SHARED] if pretrained else []), *(["target", SHARED] if loaded else [])}
    target = SHARED if SHARED in module.heads else "target"
    without_labels = not module.objective.domains() and not module.head_is_taught
    if (without_labels or module.strategy.keeps_classifier) and target not in begins_trained:
        why = "objective.alpha=null: no labels train" if without_labels else "This strategy keeps"
        raise GraftError(
            f"{why} the target's head, which is random. Begin with that of a finished run: "
            "head.weights=<run folder> backbone.weights=<run folder>."
        )
    learned = begins_trained | {*module.trained_heads()}
    for domain in dict.fromkeys(("target", *rule.domains)):
        if SHARED not in module.heads and domain not in learned:
            raise GraftError(
                f"Nothing trains the {domain}'s head: its loss has no weight in the objective and its head is "
                f"separate. Give the {domain} weight (objective.alpha), share the head (head.sharing=shared, which "
                "needs the same classes on both sides, or data.label_sets=partial or open where one lacks some), or "
                "use another selection rule."
            )
