"""Terms inside a training on real digits: together, logged, and the same after a kill at any step."""

import copy

import pytest
import torch
import toy
from lanes import first, slow
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from graft.data.module import TransferDataModule
from graft.data.sources.digits import Digits
from graft.heads.attention import AttentionHead
from graft.heads.base import HeadContext
from graft.inputs.base import DomainBatch
from graft.module import TransferModule
from graft.objectives.alpha import AlphaWeighted
from graft.rates.uniform import Uniform
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.tasks.multiclass import Multiclass
from graft.terms.alignment.adabn import AdaBN
from graft.terms.alignment.adda import ADDA
from graft.terms.alignment.afn import AFN
from graft.terms.alignment.bsp import BSP
from graft.terms.alignment.cdan import CDAN
from graft.terms.alignment.coral import CORAL
from graft.terms.alignment.dan import DAN
from graft.terms.alignment.dann import DANN
from graft.terms.alignment.jan import JAN
from graft.terms.alignment.mcc import MCC
from graft.terms.alignment.mcd import MCD
from graft.terms.alignment.mdd import MDD
from graft.terms.base import TermContext, trained_domains
from graft.terms.regularization.bi_tuning import BiTuning
from graft.terms.regularization.bss import BSS
from graft.terms.regularization.co_tuning import CoTuning
from graft.terms.regularization.delta import DELTA
from graft.terms.regularization.feature_distillation import FeatureDistillation
from graft.terms.regularization.l2sp import L2SP
from graft.terms.regularization.lwf import LwF
from graft.terms.regularization.stochnorm import StochNorm
from graft.terms.semi_supervised.fixmatch import FixMatch
from graft.terms.semi_supervised.information_maximisation import InformationMaximisation
from graft.terms.semi_supervised.mean_teacher import MeanTeacher
from graft.terms.semi_supervised.self_training import SelfTraining
from graft.terms.semi_supervised.shot import SHOT
from graft.terms.semi_supervised.tent import Tent
from graft.training.schedules import OneCycle

TERMS = {
    "l2sp": L2SP,
    "delta": DELTA,
    "bss": BSS,
    "feature_distillation": FeatureDistillation,
    "lwf": LwF,
    "co_tuning": CoTuning,
    "stochnorm": StochNorm,
    "bi_tuning": BiTuning,
    "mcd": MCD,
    "mean_teacher": MeanTeacher,
}
ADAPTATION = {
    "coral": CORAL,
    "dan": DAN,
    "jan": JAN,
    "dann": DANN,
    "cdan": lambda: CDAN(randomised=True, projection_size=8),
    "mcc": MCC,
    "mdd": MDD,
    "afn": AFN,
    "bsp": BSP,
    "adda": ADDA,
    "adabn": AdaBN,
    "information_maximisation": InformationMaximisation,
    "tent": Tent,
    "self_training": lambda: SelfTraining(threshold=0.0),
    "fixmatch": lambda: FixMatch(threshold=0.0),
    "shot": SHOT,
}
STATEFUL = ("cdan", "adda", "shot")  # with buffers, updates and a memory: of the others CI runs none
EVERY = TERMS | ADAPTATION
EPOCHS = 2


def fit(backbone, terms, callbacks=(), resume=None, bn="joint", alpha=0.0, head=nn.Linear):
    """Three steps an epoch: first the head alone, then everything."""
    torch.manual_seed(0)
    data = TransferDataModule(
        source=Digits(), target=Digits(), batch_size=10, labels_per_class=3, augment="light", eval_batch_size=512
    )
    data.load()
    data.views = {"target": sorted({view for term in terms.values() for view in term.views})}
    data.set_input(backbone.input_spec)
    objective = AlphaWeighted(alpha)
    data.train_domains = trained_domains(objective, terms)
    pretrained_head, head = (head_of(head, backbone, number) for number in (4, 10))
    backbone.set_pretrained_head(pretrained_head)
    context = TermContext(
        backbone=backbone,
        heads={"shared": head},
        target_head=head,
        pretrained_head=backbone.pretrained_head,
        pretrained=True,
        num_classes=10,
        samples=lambda: data.plain_batches("target", "train"),
        source_samples=None,
    )
    for term in terms.values():
        term.prepare(context)
    module = TransferModule(
        backbone=backbone,
        heads={"shared": head},
        tasks={"source": Multiclass(), "target": Multiclass()},
        num_outputs={"source": 10, "target": 10},
        objective=objective,
        strategy=LinearProbeThenFineTune(0.5),
        rates=Uniform(),
        schedule=OneCycle(),
        optimizer=toy.optimizer("AdamW", lr=0.01),
        terms=terms,
        bn=bn,
    )
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=EPOCHS, use_distributed_sampler=False, limit_val_batches=1)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module, trainer


def head_of(kind, backbone, num_outputs):
    if kind is nn.Linear:
        return nn.Linear(backbone.feature_size, num_outputs)
    size = backbone.tokens(backbone.example_inputs(1)).values.shape[-1]
    return AttentionHead(HeadContext(backbone.feature_size, num_outputs, local_size=size), hidden=4, dropout=0.5)


def weights_of(module):
    return {n: v.clone() for n, v in module.state_dict().items() if n.startswith(("backbone.", "heads.", "terms."))}


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")  # resuming saves nothing here
@pytest.mark.parametrize("name", first(STATEFUL, EVERY))
def test_a_run_killed_at_any_step_goes_on_as_if_it_had_not_been(name, tiny_backbone, tmp_path):
    names = {"filename": "{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, **names)
    settings = {"bn": "domain_specific"} if name in ("adabn", "adda") else {}
    module, _ = fit(tiny_backbone(dropout=0.5), {name: EVERY[name]()}, [every_step], **settings)
    whole = weights_of(module)
    for step in (2, 3, 4):  # inside the first epoch, at its end and inside the second
        checkpoint = tmp_path / f"{step}.ckpt"
        resumed, _ = fit(tiny_backbone(dropout=0.5), {name: EVERY[name]()}, resume=checkpoint, **settings)
        assert all(torch.equal(v, whole[n]) for n, v in weights_of(resumed).items()), f"killed after step {step}"


def batch_of_digits():
    views = {"weak": torch.randn(8, 1, 8, 8), "strong": torch.randn(8, 1, 8, 8)}
    return DomainBatch(torch.randn(8, 1, 8, 8), torch.arange(8), indices=torch.arange(8), views=views)


POOLED = {name: term for name, term in TERMS.items() if name != "bi_tuning"}  # which wants a linear head
ACTING = [name for name in ADAPTATION if name not in ("adda", "adabn")]  # by their value


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
@pytest.mark.parametrize("name", first(("lwf", "mdd"), [*POOLED, *ACTING]))
def test_terms_go_with_a_head_that_pools_by_itself(name, tiny_backbone, tmp_path):
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    own = {name: EVERY[name]()}
    module, _ = fit(tiny_backbone(dropout=0.5), own, [every_step], head=AttentionHead)
    (checkpoint,) = tmp_path.glob("*step=4.ckpt")
    resumed, _ = fit(tiny_backbone(dropout=0.5), {name: EVERY[name]()}, resume=checkpoint, head=AttentionHead)
    whole = weights_of(module)
    assert all(torch.equal(value, whole[key]) for key, value in weights_of(resumed).items())
    for parameter in module.parameters():
        parameter.requires_grad_(True).grad = None
    one = batch_of_digits()
    batch = {"source": one, "target": one}
    features = module.train().domain_features(batch)
    embedded = module.embeddings_of(features)
    value = module.term_losses(batch, features, module.logits_of(embedded), embedded).get(name)
    if value is None:  # of StochNorm, which acts inside the backbone
        return
    value.backward()
    moved = [parameter for parameter in module.backbone.parameters() if parameter.grad is not None]
    assert any(bool(parameter.grad.any()) for parameter in moved)


def test_all_go_together_with_a_head_that_pools_by_itself(tiny_backbone):
    _, trainer = fit(tiny_backbone(), {name: term() for name, term in POOLED.items()}, head=AttentionHead, alpha=0.5)
    values = [trainer.callback_metrics[f"train/term/{name}"] for name in POOLED if name != "stochnorm"]
    assert all(0 < value < float("inf") for value in values)


@pytest.mark.parametrize("bn", ["domain_specific", *slow("joint", "separate")])
def test_all_go_together_with_joint_training_and_are_logged(bn, tiny_backbone):
    _, trainer = fit(tiny_backbone(), {name: term() for name, term in TERMS.items()}, bn=bn, alpha=0.5)
    values = [trainer.callback_metrics[f"train/term/{name}"] for name in TERMS if name != "stochnorm"]
    assert all(0 < value < float("inf") for value in values)


@pytest.mark.parametrize("name", first(("delta", "fixmatch"), EVERY))
def test_a_copy_of_a_module_trains_alone(name, tiny_backbone):
    module, trainer = fit(tiny_backbone(), {name: EVERY[name]()})
    twin, before = copy.deepcopy(module), weights_of(module)
    twin.trainer = trainer
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=1.0)
    twin.train()
    one = batch_of_digits()
    twin.training_step({"source": one, "target": one}, 0).backward()
    optimizer.step()
    assert all(torch.equal(value, before[n]) for n, value in weights_of(module).items())
    moved = {n for n, value in weights_of(twin).items() if not torch.equal(value, before[n])}
    slow = "terms.bi_tuning.key_backbone.network.stem.0.weight"
    assert {"backbone.network.stem.0.weight", *([slow] if name == "bi_tuning" else [])} <= moved
