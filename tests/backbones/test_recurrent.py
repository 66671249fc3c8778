import pytest
import torch
from torch import nn

from graft.backbones.recurrent import RecurrentBackbone, RecurrentNetwork
from graft.backbones.stages import network_outputs
from graft.errors import GraftError
from graft.weights.loading import load_weights

TEXTS = ["a good film", "it was a very very bad film", "not good"]


def backbone(name="lstm", **options):
    return RecurrentBackbone(name, TEXTS, embedding_size=5, hidden_size=4, **options)


def encode(network, texts):
    transform = network.input_spec.transform()
    return transform.collate([torch.tensor(ids) for ids, _ in network.tokenizer(texts, network.max_length)])


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_features_do_not_depend_on_what_else_is_in_the_batch(name, pooling, bidirectional):
    network = backbone(name, pooling=pooling, bidirectional=bidirectional, layers=2).eval()
    together = network(encode(network, TEXTS))
    assert together.shape == (3, network.feature_size) == (3, 8 if bidirectional else 4)
    torch.testing.assert_close(together, torch.cat([network(encode(network, [text])) for text in TEXTS]))


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_values_are_those_of_torchs_own_network_over_packed_sequences(cell):
    network = RecurrentNetwork(cell.__name__.lower(), 3, 4, layers=2)
    own = cell(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    for number, layer in enumerate(network.layers):
        for part, ending in ((layer.forwards, ""), (layer.backwards, "_reverse")):
            for name, parameter in part.named_parameters():
                getattr(own, name.replace("l0", f"l{number}") + ending).data.copy_(parameter)
    x, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    _, state = own(packed)
    last = (state[0] if isinstance(state, tuple) else state)[-2:]
    mask = (torch.arange(6) < lengths[:, None]).long()
    torch.testing.assert_close(network(x, mask), torch.cat([last[0], last[1]], dim=1))


def test_stages_are_the_embedding_and_each_layer_and_every_parameter_learns():
    network = backbone(layers=2)
    assert [stage.name for stage in network.stages] == ["embedding", "layers.0", "layers.1"]
    network(encode(network, TEXTS)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    owned = [name for stage in network.stages for name in network.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in network.named_parameters())


def test_shapes_are_told_without_computing():
    assert dict(network_outputs(backbone()))["layers.0"] == (1, 8, 8)


def test_another_vocabulary_is_another_input():
    assert repr(backbone().input_spec) != repr(RecurrentBackbone("lstm", TEXTS[:1]).input_spec)


@pytest.mark.parametrize("texts", [[*TEXTS, "a good plot"], ["it was not a very good plot"], TEXTS])
def test_weights_of_another_vocabulary_give_the_words_that_both_have(tmp_path, texts):
    file = RecurrentBackbone("lstm", texts, embedding_size=5, hidden_size=4).eval()
    torch.save(file.state_dict(), tmp_path / "other.pt")
    network = backbone().eval()
    report = load_weights(network, str(tmp_path / "other.pt"))
    assert (report.matched, report.missing) == (report.total, [])
    shared = ["not a good", "very good"]
    torch.testing.assert_close(network(encode(network, shared)), file(encode(file, shared)))
    assert torch.equal(network.network.words, network.tokenizer.hashes)


def test_weights_of_another_embedding_leave_the_words_alone(tmp_path):
    torch.save(RecurrentBackbone("lstm", TEXTS[:2], hidden_size=4).state_dict(), tmp_path / "other.pt")
    network = backbone()
    report = load_weights(network, str(tmp_path / "other.pt"))
    assert any(name.startswith("embedding.weight (file ") for name in report.missing)
    assert torch.equal(network.network.words, network.tokenizer.hashes)


def test_a_tokenizer_in_the_place_of_words(tiny_bert):
    network = RecurrentBackbone("gru", tokenizer=str(tiny_bert), embedding_size=5, hidden_size=4)
    assert network.tokenizer.size == 14
    assert network(encode(network, TEXTS)).shape == (3, 8)


def test_what_it_needs_and_what_there_is():
    with pytest.raises(GraftError, match=r"backbone\.texts=auto: there are no texts"):
        RecurrentBackbone("lstm")
    with pytest.raises(GraftError, match=r"backbone\.name=rnn .*Allowed: lstm, gru"):
        backbone("rnn")
    with pytest.raises(GraftError, match=r"backbone\.pooling=cls .*Allowed: last, mean, max"):
        backbone(pooling="cls")
