"""MCD against the paper's three steps, written out without Graft in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
import toy
from torch import nn
from torch.utils.data import DataLoader

from graft.backbones.cnn import cnn
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.objectives.alpha import AlphaWeighted
from graft.terms.alignment.mcd import MCD, discrepancy
from graft.terms.base import TermContext

CLASSES, SIZE, LR, MOMENTUM, DECAY, K = 3, 4, 0.05, 0.9, 0.01, 3


def test_the_discrepancy_is_the_mean_absolute_difference_of_probabilities():
    logits, other = torch.randn(2, 5, CLASSES, dtype=torch.float64)
    expected = 0.0
    for p, q in zip(logits.tolist(), other.tolist(), strict=True):
        one = [torch.tensor(row, dtype=torch.float64).exp() for row in (p, q)]
        a, b = ((row / row.sum()).tolist() for row in one)
        expected += sum(abs(x - y) for x, y in zip(a, b, strict=True)) / CLASSES / 5
    assert discrepancy(logits, other).item() == pytest.approx(expected, rel=1e-12)
    assert discrepancy(logits, logits) == 0


def context_of(backbone, heads, num_classes=CLASSES):
    return TermContext(
        backbone=backbone,
        heads=heads,
        target_head=next(iter(heads.values())),
        pretrained_head=None,
        pretrained=False,
        num_classes=num_classes,
        samples=lambda: [],
        source_samples=None,
    )


def samples(seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4 * SIZE, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, CLASSES, (len(images),), generator=generator)


def build():
    torch.manual_seed(0)
    term = MCD(k=K)
    optimizer = toy.optimizer(lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    optimizer["decay_norms_and_biases"] = True
    module = toy.module_of(
        cnn(size=8, dropout=0.0), objective=AlphaWeighted(1.0), terms={"mcd": term}, optimizer=optimizer, bn="separate"
    )
    term.prepare(context_of(module.backbone, dict(module.heads.items())))
    return module.double()


def papers_training(module, accumulate, clip):
    """Steps A, B and C of Saito et al., section 3.3, on copies of the backbone and the two heads."""
    network, first, second = copy.deepcopy([module.backbone, module.heads["shared"], module.terms["mcd"].head])
    modules = nn.ModuleList([network, first, second]).train()
    optimizer = torch.optim.SGD(modules.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    (source, labels), (target, _) = samples(1), samples(2)
    batches = list(zip(source.split(SIZE), labels.split(SIZE), target.split(SIZE), strict=True))

    def step(moved, loss_on):
        optimizer.zero_grad(set_to_none=True)
        sum(loss_on(*batch) for batch in group).div(accumulate).backward()
        kept = [p for part in moved for p in part.parameters()]
        for p in modules.parameters():
            p.grad = p.grad if any(p is one for one in kept) else None
        if clip:
            nn.utils.clip_grad_norm_(kept, clip)
        optimizer.step()

    def classify(x, y, _):
        return sum(F.cross_entropy(head(network(x)), y) for head in (first, second))

    def differ(_x, _y, target):
        one, other = (torch.exp(F.log_softmax(head(network(target)), 1)) for head in (first, second))
        return (one - other).abs().mean()

    for number in range(0, len(batches), accumulate):
        group = batches[number : number + accumulate]
        step([network, first, second], classify)
        step([first, second], lambda *batch: classify(*batch) - differ(*batch))
        for _ in range(K):
            step([network], differ)
    return modules


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, None), (1, 0.5)])
def test_a_training_takes_the_papers_steps(accumulate, clip):
    module = build()
    expected = papers_training(module, accumulate, clip)
    target = [DomainBatch(images) for images in samples(2)[0].split(SIZE)]
    loaders = {"source": toy.loader_of(DomainBatch(*samples(1)), SIZE), "target": DataLoader(target, batch_size=None)}
    before = [p.detach().clone() for p in module.parameters()]
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    trainer = toy.trainer_on_cpu(max_epochs=1, precision="64-true", **options)
    trainer.fit(module, loaders)
    assert trainer.global_step == 4 // accumulate
    learned = nn.ModuleList([module.backbone, module.heads["shared"], module.terms["mcd"].head])
    for ours, theirs in zip(learned.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert not any(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_the_second_head_begins_elsewhere_and_trains():
    module = build()
    head = module.terms["mcd"].head
    assert not torch.equal(head.weight, module.heads["shared"].weight)
    assert all(p.requires_grad for p in head.parameters())


@pytest.mark.parametrize(("names", "classes"), [(("source", "target"), CLASSES), (("shared",), None)])
def test_a_head_for_each_domain_or_no_classes_are_refused(names, classes):
    heads = {name: nn.Linear(6, CLASSES) for name in names}
    with pytest.raises(GraftError, match=r"term\.mcd.*head\.sharing=shared"):
        MCD().prepare(context_of(cnn(size=8), heads, classes))
