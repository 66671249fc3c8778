"""CPC: its loss step by step, that contexts see nothing of what comes, gradients, and refusals."""

import pytest
import torch
import toy

from graft.backbones.sequence import SequenceBackbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch, Fields
from graft.terms.base import TrainStep
from graft.terms.contrastive.cpc import CPC, contrast_of_steps


def network(**keys):
    torch.manual_seed(0)
    return SequenceBackbone("gru", input_size=3, hidden_size=5, dropout=0.0, **{"bidirectional": False, **keys})


def step_of(values, lengths):
    mask = (torch.arange(values.shape[1]) < torch.tensor(lengths)[:, None]).long()
    return TrainStep({"source": DomainBatch(Fields({"values": values, "mask": mask}))}, {}, {}, 0.0)


def test_the_loss_is_the_mean_over_sequences_places_and_distances():
    backbone, term = network(), CPC(horizon=2, projection_size=4)
    term.prepare(toy.term_context(backbone))
    backbone.double()
    term.double()
    lengths = [5, 3, 4]
    values = torch.randn(3, 5, 3, dtype=torch.float64)
    states = values
    for layer in backbone.network.layers:
        states = layer(states, torch.tensor(lengths))
    by_distance = []
    for distance, predict in enumerate(term.predict, start=1):
        losses = []
        for sequence, length in enumerate(lengths):
            for place in range(length - distance):
                wanted = place + distance
                prediction = predict(states[sequence, place])
                others = {n: term.encode(values[n, wanted]) @ prediction for n in range(3) if wanted < lengths[n]}
                losses.append(torch.stack(list(others.values())).exp().sum().log() - others[sequence])
        by_distance.append(torch.stack(losses).mean())
    found = term(step_of(values, lengths))
    torch.testing.assert_close(found, torch.stack(by_distance).mean(), rtol=1e-12, atol=0)
    found.backward()
    for parameter in (*backbone.parameters(), *term.parameters()):
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_a_context_sees_nothing_of_the_steps_that_come():
    backbone, term = network(layers=3), CPC()
    term.prepare(toy.term_context(backbone))
    values = torch.randn(2, 6, 3, requires_grad=True)
    inputs = Fields({"values": values, "mask": torch.ones(2, 6, dtype=torch.int64)})
    _, states = term.read_and_states(inputs)
    (gradient,) = torch.autograd.grad(states[:, 2].sum(), values)
    assert gradient[:, :3].abs().sum() > 0
    assert gradient[:, 3:].abs().sum() == 0


def test_padding_is_no_step_and_sequences_of_one_step_have_no_loss():
    predictions, steps = torch.randn(2, 4, 3, 2)
    mask = torch.ones(4, 3)
    mask[0, 1:] = 0
    changed = steps.clone()
    changed[0, 1:] = 100.0
    assert torch.equal(contrast_of_steps(predictions, steps, mask), contrast_of_steps(predictions, changed, mask))
    backbone, term = network(), CPC()
    term.prepare(toy.term_context(backbone))
    assert term(step_of(torch.randn(4, 1, 3), [1] * 4)).item() == 0


def test_one_sequence_and_reading_backwards_are_refused(tiny_backbone):
    term, backbone = CPC(), network()
    term.prepare(toy.term_context(backbone))
    with pytest.raises(GraftError, match="batch has one"):
        term(step_of(torch.randn(1, 4, 3), [4]))
    for other in (network(bidirectional=True), tiny_backbone()):
        with pytest.raises(GraftError, match=r"backbone\.bidirectional=false"):
            term.check(toy.term_context(other))
