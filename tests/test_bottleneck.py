"""A head with a bottleneck: what it computes, what terms see of it, and which of it trains."""

import pytest
import torch
import toy
from small_run import config_in
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from graft import load_run
from graft.backbones.cnn import cnn
from graft.cli.job import execute
from graft.errors import GraftError
from graft.experiment import assemble, prepare
from graft.heads.bottleneck import BottleneckHead
from graft.inputs.base import DomainBatch
from graft.terms.base import Term
from graft.training.fitting import Fitting

CLASSES, SIZE = 3, 4
FROZEN = [
    "backbone=lenet",
    "strategy=frozen",
    "head=bottleneck",
    "head.width=16",
    "backbone.weights=source",
    "pretrain.epochs=1",
    "data.image_size=16",
    "data.source.samples=60",
    "data.labels_per_class=null",
    "data.target_setting=unsupervised",
    "data.epoch=source",
    "data.batch_size=32",
    "objective.alpha=1",
    "selection=last",
    "term=[mcd]",
    "training.epochs=2",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
]


def samples(seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4 * SIZE, 1, 8, 8, generator=generator)
    return DomainBatch(images, torch.randint(0, CLASSES, (len(images),), generator=generator))


class Seen(Term):
    """Keeps what it sees."""

    weight = 1.0
    domains = ("source", "target")

    def __init__(self):
        super().__init__()
        self.steps = []

    def forward(self, step):
        self.steps.append(step)


def test_it_is_a_linear_layer_batchnorm_and_a_classifier_of_normalised_weights():
    head = BottleneckHead(8, CLASSES, width=5).double()
    with torch.no_grad():
        head.classifier.parametrizations.weight.original0.mul_(3)
    features = torch.randn(7, 8, dtype=torch.float64)
    linear, norm = head.bottleneck
    embedded = features @ linear.weight.T + linear.bias
    embedded = (embedded - embedded.mean(0)) / (embedded.var(0, unbiased=False) + norm.eps).sqrt()
    length, direction = (getattr(head.classifier.parametrizations.weight, f"original{i}") for i in (0, 1))
    weight = direction / direction.norm(dim=1, keepdim=True) * length
    torch.testing.assert_close(head(features), embedded @ weight.T + head.classifier.bias)
    assert weight.norm(dim=1).allclose(length.flatten())
    plain = BottleneckHead(8, CLASSES, relu=True, dropout=0.5, weight_norm=False)
    assert [type(layer) for layer in plain.bottleneck] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert type(plain.classifier) is nn.Linear


@pytest.mark.parametrize("options", [{"width": 0}, {"dropout": 1.0}])
def test_wrong_options(options):
    with pytest.raises(GraftError, match=f"head.{next(iter(options))}="):
        BottleneckHead(8, CLASSES, **options)


@pytest.mark.parametrize(("bn", "batches"), [("joint", 4), ("separate", 8)])
def test_both_domains_go_through_it_once_a_step_and_terms_see_what_comes_out(bn, batches):
    term, backbone = Seen(), cnn(size=8, dropout=0.0)
    module = toy.module_of(backbone, terms={"seen": term}, bn=bn)
    head = module.heads["shared"] = BottleneckHead(backbone.feature_size, CLASSES, width=5)
    loaders = {"source": toy.loader_of(samples(1), SIZE), "target": toy.loader_of(samples(2), SIZE)}
    toy.trainer_on_cpu(max_epochs=1).fit(module, loaders)
    assert head.bottleneck[1].num_batches_tracked == batches
    source, target = term.steps[0].embeddings.values()
    assert source.shape == target.shape == (SIZE, 5)
    assert source.requires_grad
    torch.testing.assert_close((source + target).mean(0), torch.zeros(5), atol=1e-5, rtol=0)  # the shift is still 0
    assert bool(target.mean(0).abs().max() > 0.01) is (bn == "joint")


def test_without_one_embeddings_are_features():
    term = Seen()
    module = toy.module_of(cnn(size=8, dropout=0.0), terms={"seen": term})
    loaders = {"source": toy.loader_of(samples(1), SIZE), "target": toy.loader_of(samples(2), SIZE)}
    toy.trainer_on_cpu(max_epochs=1).fit(module, loaders)
    step = term.steps[0]
    assert all(step.embeddings[domain] is features for domain, features in step.features.items())


def test_mcd_on_a_frozen_backbone_moves_the_bottleneck_by_stored_features(tmp_path):
    experiment = assemble(config_in(tmp_path, *FROZEN, "backbone.weights=null", "strategy=scratch"))
    module = experiment.module
    prepare(experiment)
    term, head = module.terms["mcd"], module.heads["shared"]
    assert [*dict(term.head.named_parameters())] == [*dict(head.classifier.named_parameters())]
    assert not torch.equal(term.head.weight, head.classifier.weight)
    assert [update.parts for update in term.updates()] == [("head", "term"), ("backbone", "bottleneck")]
    frozen = assemble(config_in(tmp_path, *FROZEN))
    prepare(frozen)
    fitting = Fitting(frozen, [], in_sweep=True)
    before = {name: value.clone() for name, value in frozen.module.state_dict().items()}
    seen = []
    fitting.trainer.callbacks.append(LooksAtBatches(seen))
    fitting.trainer.fit(frozen.module, frozen.data)
    assert seen == ["stored"] * len(seen)
    assert len(seen) == 4
    moved = {name for name, value in frozen.module.state_dict().items() if not torch.equal(value, before[name])}
    assert {"heads.shared.bottleneck.0.weight", "heads.shared.bottleneck.1.running_mean"} <= moved
    assert not any(name.startswith("backbone") for name in moved)


class LooksAtBatches(toy.pl.Callback):
    def __init__(self, seen):
        self.seen = seen

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += ["inputs" if one.stored is None else "stored" for one in batch.values()][:1]


def test_its_model_is_rebuilt_from_the_runs_folder(tmp_path):
    options = ["data.source=null", "objective.alpha=0", "data.target_setting=supervised", "data.epoch=2", "term=[]"]
    execute(config_in(tmp_path, *FROZEN, *options, "backbone.weights=null", "strategy=scratch", "training.epochs=1"))
    model = load_run(tmp_path / "run")
    assert isinstance(model.head, BottleneckHead)
    assert not any(isinstance(m, _BatchNorm) and m.training for m in model.head.modules())
    assert model.head(torch.randn(2, model.backbone.feature_size)).shape == (2, 10)
