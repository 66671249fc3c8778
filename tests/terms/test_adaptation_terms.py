"""Terms that adapt to an unlabelled target: on every modality, together, and through frozen features."""

import pytest
import torch
import toy

from graft.backbones.recurrent import RecurrentBackbone
from graft.backbones.speech import mel_backbone
from graft.backbones.tabular import mlp
from graft.heads.bottleneck import BottleneckHead
from graft.inputs.base import DomainBatch
from graft.inputs.columns import Column, Columns
from graft.objectives.alpha import AlphaWeighted
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
from graft.terms.alignment.mdd import MDD
from graft.terms.base import TermContext
from graft.terms.semi_supervised.fixmatch import FixMatch
from graft.terms.semi_supervised.information_maximisation import InformationMaximisation
from graft.terms.semi_supervised.self_training import SelfTraining
from graft.terms.semi_supervised.shot import SHOT
from graft.terms.semi_supervised.tent import Tent

CLASSES = 3
TERMS = {
    "coral": CORAL,
    "dan": DAN,
    "jan": JAN,
    "dann": lambda: DANN(hidden=8),
    "cdan": lambda: CDAN(hidden=8),
    "mcc": MCC,
    "mdd": MDD,
    "afn": AFN,
    "bsp": BSP,
    "adda": lambda: ADDA(hidden=8),
    "adabn": AdaBN,
    "information_maximisation": InformationMaximisation,
    "tent": Tent,
    "self_training": lambda: SelfTraining(threshold=0.2),
    "fixmatch": lambda: FixMatch(threshold=0.2),
    "shot": SHOT,
}
WITHOUT_BATCHNORM = {"text", "table"}  # which have no views either


@pytest.fixture
def make_backbone(tiny_backbone):
    def build(modality):
        torch.manual_seed(0)
        if modality == "text":
            return RecurrentBackbone("lstm", texts=["a good film", "a bad plot"], embedding_size=4, hidden_size=4)
        if modality == "speech":
            return mel_backbone("test_resnet", sample_rate=8000, clip_seconds=0.3, n_mels=32, hop_length_ms=10)
        if modality == "table":
            return mlp(Columns([Column("age", "numeric"), Column("job", "categorical", ("cook", "smith"))]), width=8)
        return tiny_backbone()

    return build


def batch_for(backbone, unlabelled=6):
    """Labelled samples of the source, and more of the target without labels, with views."""
    source, target, again = (backbone.example_inputs(n) for n in (4, unlabelled, unlabelled))
    return {
        "source": DomainBatch(source, torch.arange(4) % CLASSES),
        "target": DomainBatch(target, indices=torch.arange(unlabelled), views={"weak": target, "strong": again}),
    }


def module_with(backbone, terms, head=None, **settings):
    module = toy.module_of(backbone, objective=AlphaWeighted(1.0), terms=terms, **{"bn": "separate"} | settings)
    if head is not None:
        module.heads["shared"] = head
    batch = batch_for(backbone)
    context = TermContext(
        backbone=backbone,
        heads=dict(module.heads.items()),
        target_head=module.head("target"),
        pretrained_head=None,
        pretrained=True,
        num_classes=CLASSES,
        samples=lambda: [batch["target"]],
        source_samples=None,
    )
    for term in terms.values():
        term.check(context)
        term.prepare(context)
    module.fixed_progress = 0.5
    return module.train(), batch


CASES = [
    (modality, name)
    for modality in ("image", "text", "speech", "table")
    for name in TERMS
    if not (modality in WITHOUT_BATCHNORM and name in ("adabn", "fixmatch"))
]


@pytest.mark.parametrize(("modality", "name"), CASES)
def test_a_term_moves_the_backbone_on_every_modality(modality, name, make_backbone):
    settings = {"bn": "domain_specific"} if name == "adabn" else {}
    module, batch = module_with(make_backbone(modality), {name: TERMS[name]()}, **settings)
    before = {key: value.clone() for key, value in module.backbone.state_dict().items()}
    assert module.training_step(batch, 0).isfinite()
    if name == "adabn":  # which moves statistics of both domains
        moved = {key for key, value in module.backbone.state_dict().items() if not torch.equal(value, before[key])}
        assert any(key.endswith(".running_mean") for key in moved)
        assert any(key.endswith(".source_running_mean") for key in moved)
        return
    updates = [module.update_loss(update, batch) for update in module.terms[name].updates()]
    (value,) = updates or [value_of(module, name, batch)]
    gradients = torch.autograd.grad(value, [*module.backbone.parameters()], allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients)


def value_of(module, name, batch):
    features = module.domain_features(batch)
    embedded = module.embeddings_of(features)
    return module.term_losses(batch, features, module.logits_of(embedded), embedded)[name]


def test_all_go_together_in_one_step(make_backbone):
    terms = {name: kind() for name, kind in TERMS.items() if name not in ("adabn", "adda")}
    module, batch = module_with(make_backbone("image"), terms, bn="joint")
    module.training_step(batch, 0).backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    assert set(module.step_losses) == {"source", *(f"term {name}" for name in terms)}


@pytest.mark.parametrize("name", ["coral", "dan", "jan", "dann", "cdan", "mcc", "mdd", "afn", "bsp"])
def test_a_bottleneck_learns_where_the_backbone_is_frozen(name, make_backbone):
    backbone = make_backbone("image").requires_grad_(False)
    head = BottleneckHead(backbone.feature_size, CLASSES, width=5)
    module, batch = module_with(backbone, {name: TERMS[name]()}, head=head, bn="joint")
    assert torch.autograd.grad(value_of(module, name, batch), head.bottleneck[0].weight)[0].any()
    assert module.can_cut
