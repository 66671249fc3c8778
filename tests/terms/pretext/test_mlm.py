"""Masked tokens: which are hidden and how, the loss against its formula, gradients, and refusals."""

import pytest
import torch
import toy

from graft.backbones.recurrent import RecurrentBackbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch, Fields
from graft.terms.base import TrainStep
from graft.terms.pretext.mlm import MaskedTokens, hidden_places, with_hidden

TEXTS = ["a good film with a plot", "a bad plot", "what a film", "good good bad"]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return RecurrentBackbone("lstm", texts=TEXTS, embedding_size=6, hidden_size=5, dropout=0.0)


def step_of(backbone, texts=TEXTS):
    transform = backbone.input_spec.transform()
    ids = [torch.tensor(one) for one, _ in backbone.tokenizer(texts, 16)]
    return TrainStep({"source": DomainBatch(transform.collate(ids))}, {}, {}, 0.0)


def test_the_fraction_of_every_texts_own_tokens_is_hidden():
    torch.manual_seed(0)
    ids = torch.randint(5, 30, (200, 20))
    mask = torch.ones_like(ids)
    mask[::2, 12:] = 0  # padding
    ids[:, 0] = 2  # a special token
    hidden = hidden_places(Fields({"input_ids": ids, "attention_mask": mask}), torch.tensor([0, 2]), 0.25)
    assert set(hidden[::2].sum(1).tolist()) == {3}, "of 11"
    assert set(hidden[1::2].sum(1).tolist()) == {5}, "of 19"
    assert not hidden[:, 0].any()
    assert not hidden[mask == 0].any()
    assert (hidden[1::2, 1:].sum(0) > 0).all(), "every place at some time"
    short = Fields({"input_ids": torch.tensor([[2, 7], [2, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])})
    assert hidden_places(short, torch.tensor([0, 2]), 0.15).tolist() == [[False, True], [False, False]]


def test_hidden_tokens_are_masked_random_or_kept_in_the_shares_of_the_paper():
    torch.manual_seed(0)
    ids = torch.full((200, 100), 7)
    hidden = torch.rand(ids.shape) < 0.5
    changed = with_hidden(ids, hidden, mask=1, size=1000)
    assert torch.equal(changed[~hidden], ids[~hidden])
    found = changed[hidden]
    assert float((found == 1).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((found == 7).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_the_loss_is_the_hidden_tokens_cross_entropy_and_its_gradients_flow(encoder):
    term, step = MaskedTokens(fraction=0.5), step_of(encoder)
    term.prepare(toy.term_context(encoder))
    encoder.double()
    term.double()
    torch.manual_seed(3)
    found = term(step)
    torch.manual_seed(3)
    text = step.inputs["source"]
    hidden = hidden_places(text, term.special, 0.5)
    ids = with_hidden(text["input_ids"], hidden, term.mask, term.size)
    values = encoder.tokens(Fields({"input_ids": ids, "attention_mask": text["attention_mask"]})).values
    losses = []
    for text_number, place in hidden.nonzero().tolist():
        scores = term.decoder.weight @ values[text_number, place] + term.decoder.bias
        losses.append(scores.exp().sum().log() - scores[text["input_ids"][text_number, place]])
    assert len(losses) == 3 + 2 + 2 + 2
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-12, atol=0)
    found.backward()
    for parameter in (*encoder.parameters(), *term.decoder.parameters()):
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_texts_without_a_word_have_no_loss_and_a_tokenizer_without_a_mask_is_refused(encoder):
    term = MaskedTokens()
    term.prepare(toy.term_context(encoder))
    assert term(step_of(encoder, ["nothing known", ""])).item() == 0
    encoder.tokenizer.mask = None
    with pytest.raises(GraftError, match="neither a mask nor"):
        term.check(toy.term_context(encoder))
