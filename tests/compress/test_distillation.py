"""Distillation as a term: against an independent computation in double precision, and what it refuses."""

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy
from torch import nn

from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.sequence import SequenceBackbone
from graft.backbones.tabular import mlp
from graft.cache.disk import DiskCache
from graft.cache.once import TrainingSamples
from graft.compress.distill import Distill
from graft.compress.distillation import Distillation
from graft.compress.teacher import RunTeacher
from graft.data.views import TEACHER
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.inputs.columns import Column, Columns
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.terms.base import Term, TermContext, TrainStep

CLASSES = ("cat", "dog", "owl")
ALL = {"logits": 0.9, "features": 0.5, "attention": 2.0}


def network(width, seed, size=8, stages=2):
    """Grey images to `width` features, with BatchNorm and dropout; in double precision."""
    torch.manual_seed(seed)
    layers = nn.Sequential()
    for number in range(stages):
        convolution = nn.Conv2d(width if number else 1, width, 3, padding=1)
        layers.add_module(f"layer{number}", nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
    layers.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)))
    parts = [Stage(f"layer{number}", (f"network.layer{number}",)) for number in range(stages)]
    return ImageBackbone(f"width{width}", layers, size=size, channels=1, feature_size=width, stages=parts).double()


@dataclass
class Description:
    """What a teacher's model.json says, as far as it counts here."""

    name: str = "large"
    reading: dict[str, Any] = field(default_factory=dict)
    head: dict[str, int] = field(default_factory=lambda: {"num_outputs": len(CLASSES)})


@dataclass
class Network:
    """A model without a folder."""

    backbone: nn.Module
    head: nn.Module
    task: Any
    classes: tuple[str, ...] | None
    description: Description = field(default_factory=Description)

    def to(self, device):
        return self

    def as_weights(self, inputs):
        return inputs


def teacher_of(backbone, task=None, classes=CLASSES, reading=None):
    """A teacher of a network that lies in no folder."""
    found = RunTeacher.__new__(RunTeacher)
    head = nn.Linear(backbone.feature_size, len(classes)).to(next(backbone.parameters()))
    parts = [part.eval().requires_grad_(False) for part in (backbone, head)]
    found.place, found.fingerprint = "logs/large", "abc"
    found.model = Network(*parts, task or Multiclass(), classes, Description(reading=reading or {}))
    found.backbone = backbone
    return found


def context_of(backbone, task=None, classes=CLASSES, **changes):
    torch.manual_seed(1)
    head = nn.Linear(backbone.feature_size, len(classes)).to(next(backbone.parameters()))
    return TermContext(
        backbone=backbone,
        heads={"shared": head},
        target_head=head,
        pretrained_head=None,
        pretrained=False,
        num_classes=len(classes),
        samples=lambda: [],
        source_samples=None,
        task=task or Multiclass(),
        classes=classes,
        **changes,
    )


def begun(teacher, context, weights, temperature=4.0, fixed=False):
    """The term as a run begins with it."""
    term = Distillation(teacher, temperature, weights)
    term.choose_inputs(context.backbone, fixed=fixed)
    term.check(context)
    term.prepare(context)
    return term.double()


def step_of(context, batch):
    inputs = torch.cat([one.inputs for one in batch.values()])
    seen = context.backbone(inputs).split([len(one) for one in batch.values()])
    features = dict(zip(batch, seen, strict=True))
    return TrainStep(batch, features, {name: context.target_head(one) for name, one in features.items()}, 0.0)


class Rows(tuple):
    """As many samples, which are not looked at."""

    fingerprint = "some"


def images(count, seed=0, size=8):
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student, head, regressor, teacher, x, order, temperature, weights):
    """The weighted sum for networks of `network`, module by module; in eval mode, so that nothing is random."""
    losses = []
    maps, features, logits = [], [], []
    for backbone, top in ((student, head), (teacher.backbone, teacher.model.head)):
        own, values = [], x
        for layer in list(backbone.network)[:-1]:
            values = layer(values)
            own.append(values)
        maps.append(own)
        features.append(values.mean((2, 3)))
        logits.append(top(features[-1]))
    log_p = torch.log(torch.exp(logits[1][:, order] / temperature))
    log_p = log_p - torch.log(torch.exp(log_p).sum(1, keepdim=True))
    log_q = logits[0] / temperature - torch.log(torch.exp(logits[0] / temperature).sum(1, keepdim=True))
    losses.append(weights["logits"] * temperature**2 * (torch.exp(log_p) * (log_p - log_q)).sum(1).mean())
    own = features[0] @ regressor.weight.T + regressor.bias
    cosine = (own * features[1]).sum(1) / own.norm(dim=1) / features[1].norm(dim=1)
    losses.append(weights["features"] * (1 - cosine).mean())
    distances = []
    for first, second in zip(maps[0], maps[1], strict=True):
        q, p = ((one**2).sum(1).flatten(1) for one in (first, second))
        distances.append(0.5 * ((q / q.norm(dim=1, keepdim=True) - p / p.norm(dim=1, keepdim=True)) ** 2).sum(1).mean())
    losses.append(weights["attention"] * sum(distances) / len(distances))
    return sum(losses)


def test_value_and_gradients_are_those_of_an_independent_computation():
    student, teacher = network(4, seed=0), teacher_of(network(7, seed=5), classes=("owl", "cow", "cat", "dog"))
    context = context_of(student)
    term = begun(teacher, context, ALL, temperature=3.0)
    student.train()
    student.network.pool.eval()  # its dropout
    batch = {"source": DomainBatch(images(5, seed=8)), "target": DomainBatch(images(6, seed=9))}
    for layer in list(student.network)[:-1]:
        layer[1].eval()
    value = term(step_of(context, batch))
    parameters = [*student.parameters(), *context.target_head.parameters(), *term.regressor.parameters()]
    gradients = torch.autograd.grad(value, parameters)

    order = [2, 3, 0]  # cat, dog, owl among the teacher's classes
    expected = by_hand(
        student, context.target_head, term.regressor, teacher, batch["target"].inputs, order, 3.0, term.weights
    )
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)
    assert all(gradient.abs().max() > 0 for gradient in gradients[-4:])


def test_the_objective_keeps_the_rest_of_the_weight():
    assert Distillation(teacher_of(network(4, 0)), 4.0, {"logits": 0.75}).objective_weight == 0.25
    assert Distillation(teacher_of(network(4, 0)), 4.0, {"features": 3.0}).objective_weight == 1.0


class Three(Term):
    """A value that no network changes."""

    domains = ("target",)
    weight = 2.0
    objective_weight = 0.25

    def forward(self, step):
        return torch.tensor(3.0)


def test_the_objective_is_multiplied_and_the_term_added(tiny_backbone):
    module = toy.module_of(tiny_backbone(), domains=("target",), terms={"three": Three()})
    module.fixed_progress = 0.0
    batch = toy.batch_of_tensors({"target": (torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))})
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(0.25 * module.step_losses["target"].item() + 6.0, rel=1e-6)


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
    teacher = teacher_of(network(4, seed=5))
    student = copy.deepcopy(teacher.backbone).requires_grad_(True)
    context = context_of(student)
    context.target_head.load_state_dict(teacher.model.head.state_dict())
    term = begun(teacher, context, ALL)
    student.train()
    for module in student.network:
        module.eval()
    value = term(step_of(context, {"target": DomainBatch(images(6))}))
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert not list(term.regressor.parameters())  # features are of one size


def test_the_teacher_is_in_no_state_and_in_no_copy_and_stays_as_it_is():
    teacher = teacher_of(network(7, seed=5))
    before = copy.deepcopy(teacher.backbone.state_dict())
    context = context_of(network(4, seed=0))
    term = begun(teacher, context, ALL)
    term.train()
    optimizer = torch.optim.SGD([*context.backbone.parameters(), *term.parameters()], lr=0.1)
    for _ in range(2):
        term(step_of(context, {"target": DomainBatch(images(6))})).backward()
        optimizer.step()
    assert {*term.state_dict()} == {"regressor.weight", "regressor.bias"}
    assert not teacher.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.backbone.state_dict().items())
    assert copy.deepcopy(Distillation(teacher, 4.0, ALL)).teacher is teacher


def test_a_teacher_of_other_inputs_gets_a_view_of_its_own():
    student = network(4, seed=0)
    for size, views in ((8, ()), (12, (TEACHER,))):
        term = Distillation(teacher_of(network(7, seed=5, size=size)), 4.0, {"logits": 0.9})
        term.choose_inputs(student, fixed=False)
        assert term.views == views
        assert term.needs_inputs
    assert term.teacher_spec == term.teacher.backbone.input_spec


def test_of_samples_that_never_change_the_teacher_sees_each_once(tmp_path):
    student, teacher = network(4, seed=0), teacher_of(network(7, seed=5, size=12))
    all_images = images(10, size=12)
    order = torch.tensor([3, 9, 0, 1, 7, 2, 8, 4, 6, 5])  # as batches of about one length come

    class Data:
        """Ten images, in the form of the teacher."""

        eval_batch_size = 4
        asked = 0

        def __init__(self):
            self.domains = {"target": SimpleNamespace(train=Rows(range(10)))}

        def plain_batches(self, domain, split, spec):
            assert (domain, split, spec) == ("target", "train", teacher.backbone.input_spec)
            self.asked += 1
            for indices in order.split(4):
                yield DomainBatch(all_images[indices], indices=indices)

        def parts(self, domain):
            return []

    data = Data()
    context = context_of(student, fixed_samples=TrainingSamples(data, DiskCache(tmp_path, 2**20), torch.device("cpu")))
    term = begun(teacher, context, {"logits": 0.9, "features": 1.0}, fixed=True)
    assert not term.needs_inputs
    assert not term.views
    chosen = torch.tensor([5, 0, 9])
    taught = term.taught(DomainBatch(images(3), indices=chosen), torch.zeros(3, 3, dtype=torch.float64))
    live = teacher(all_images[chosen])
    torch.testing.assert_close(taught.logits, live.logits)
    torch.testing.assert_close(taught.features, live.features)

    again = begun(teacher, context, {"logits": 0.9, "features": 1.0}, fixed=True)
    assert torch.equal(again.kept.logits, term.kept.logits)
    assert data.asked == 1  # the next run finds them in the cache

    with_maps = Distillation(teacher, 4.0, ALL)
    with_maps.choose_inputs(student, fixed=True)
    assert with_maps.needs_inputs  # maps of all samples are too large to keep


# What it refuses


def test_a_teacher_of_another_task_or_of_too_few_classes_is_refused():
    student = network(4, seed=0)
    with pytest.raises(GraftError, match=r"trained with task=binary, and this run has task=multiclass"):
        begun(teacher_of(network(7, 5), Binary(), ("cat", "dog")), context_of(student), {"logits": 0.9})
    with pytest.raises(GraftError, match=r"it does not know owl\. Its classes are cat, dog"):
        begun(teacher_of(network(7, 5), classes=("cat", "dog")), context_of(student), {"logits": 0.9})


def test_a_teacher_of_another_modality_is_refused():
    teacher = teacher_of(SequenceBackbone("gru", input_size=3))
    with pytest.raises(GraftError, match=r"large takes sequence inputs, and the student image"):
        begun(teacher, context_of(network(4, 0)), {"logits": 0.9})


def test_attention_needs_maps_of_both():
    student = SequenceBackbone("gru", input_size=3)
    with pytest.raises(GraftError, match=r"gives features alone"):
        begun(teacher_of(SequenceBackbone("lstm", input_size=3)), context_of(student), ALL)


def test_numbers_in_other_units_are_refused():
    reading = {"mean": [0.0, 1.0], "scale": [1.0, 2.0]}
    student = SequenceBackbone("gru", input_size=2)
    teacher = teacher_of(SequenceBackbone("lstm", input_size=2), reading=reading)
    begun(teacher, context_of(student, reading=reading), {"logits": 0.9})
    with pytest.raises(GraftError, match="sequences in other units"):
        begun(teacher, context_of(student, reading=reading | {"mean": [0.0, 1.1]}), {"logits": 0.9})

    age, job = Column("age", "numeric", mean=40.0, std=10.0), Column("job", "categorical", ("cook",))
    teacher = teacher_of(mlp(columns=Columns([age, job])))
    begun(teacher, context_of(mlp(columns=Columns([job, age]), width=8)), {"logits": 0.9})
    other = mlp(columns=Columns([Column("age", "numeric", mean=41.0, std=10.0), job]))
    with pytest.raises(GraftError, match="it takes `age` in other units"):
        begun(teacher, context_of(other), {"logits": 0.9})
    with pytest.raises(GraftError, match="column `job` that the target lacks"):
        begun(teacher, context_of(mlp(columns=Columns([age]))), {"logits": 0.9})


def test_a_checkpoint_that_another_teacher_taught_is_refused():
    compression = Distill.__new__(Distill)
    nn.Module.__init__(compression)
    compression.teacher = teacher_of(network(4, 0))
    compression.prepare(None, compression.state())
    compression.prepare(None, None)
    with pytest.raises(GraftError, match="not those that the checkpoint was taught by"):
        compression.prepare(None, {"teacher_fingerprint": "another"})
