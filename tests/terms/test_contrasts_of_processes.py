"""Terms of pretraining: two processes have the loss and the gradient that one has of both of their batches."""

import pytest
import torch
import torch.distributed as dist
import toy

from graft.backbones.lenet import lenet
from graft.backbones.sequence import SequenceBackbone
from graft.backbones.tabular import mlp
from graft.inputs.base import DomainBatch, Fields
from graft.inputs.columns import Column, Columns
from graft.terms.base import TrainStep
from graft.terms.contrastive import scarf
from graft.terms.contrastive.cpc import CPC
from graft.terms.contrastive.scarf import SCARF
from graft.terms.contrastive.simclr import SimCLR
from graft.terms.pretext.byol import BYOL
from graft.terms.pretext.vicreg import VICReg
from tests.processes import in_each_of_two

NUMBERS = Columns(tuple(Column(name, "numeric", mean=0.0, std=1.0, median=0.0) for name in "abc"))


def two_views(places):
    images, others = torch.rand(2, 6, 1, 16, 16, dtype=torch.float64)[:, places]
    return lenet(size=16, dropout=0.0, features=12), images, {"weak": others}


def rows(places):
    numbers = torch.randn(6, 3, dtype=torch.float64)[places]
    inputs = {"numbers": numbers, "missing": 0 * numbers, "codes": torch.zeros(len(places), 0).long()}
    return mlp(NUMBERS, width=8, blocks=1, dropout=0.0), Fields(inputs), {}


def sequences(places):
    lengths = torch.tensor([3, 2, 5, 4, 2, 3])[places]  # the processes' longest are 5 and 4
    values = torch.randn(6, 5, 3, dtype=torch.float64)[places, : lengths.max()]
    mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
    backbone = SequenceBackbone("gru", input_size=3, hidden_size=5, bidirectional=False, dropout=0.0)
    return backbone, Fields({"values": values, "mask": mask}), {}


TERMS = {"simclr": (SimCLR, two_views), "vicreg": (VICReg, two_views), "byol": (BYOL, two_views)}
TERMS |= {"scarf": (SCARF, rows), "cpc": (CPC, sequences)}


def loss_and_gradients(name, places):
    """Of a term and the samples at some of the six places; all else is the same in every process."""
    make, data = TERMS[name]
    torch.manual_seed(0)
    backbone, inputs, views = data(places)
    backbone.double()
    term = make(projection_size=4)
    term.prepare(toy.term_context(backbone))
    term.double()
    loss = term(TrainStep({"source": DomainBatch(inputs, views=views)}, {"source": backbone(inputs)}, {}, 0.0))
    loss.backward()
    parts = [*backbone.named_parameters(), *((f"term.{key}", value) for key, value in term.named_parameters())]
    return loss.detach(), {key: value.grad for key, value in parts if value.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMS)
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path, monkeypatch, name):
    shifted = lambda rows, fraction: Fields(rows.tensors | {"numbers": rows["numbers"] + fraction})  # noqa: E731
    monkeypatch.setattr(scarf, "corrupted", shifted)  # which draws other values in every process
    loss, gradients = loss_and_gradients(name, list(range(6)))
    halves = in_each_of_two(lambda: loss_and_gradients(name, list(range(dist.get_rank(), 6, 2))), tmp_path)
    torch.testing.assert_close((halves[0][0] + halves[1][0]) / 2, loss, rtol=1e-12, atol=0)
    assert gradients.keys() == halves[0][1].keys()
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())
    for key, gradient in gradients.items():  # the mean, as DDP takes it
        torch.testing.assert_close((halves[0][1][key] + halves[1][1][key]) / 2, gradient, rtol=1e-9, atol=1e-12)
