import pytest
import torch

from graft.backbones.sequence import SequenceBackbone
from graft.errors import GraftError
from graft.inputs.base import Fields


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_features_do_not_depend_on_padding(name):
    network = SequenceBackbone(name, 3, hidden_size=4, layers=2).eval()
    values = torch.randn(1, 5, 3)
    alone = network(Fields({"values": values, "mask": torch.ones(1, 5, dtype=torch.int64)}))
    padded = torch.cat([values, torch.randn(1, 4, 3)], dim=1)
    mask = (torch.arange(9) < 5).long()[None]
    torch.testing.assert_close(alone, network(Fields({"values": padded, "mask": mask})))
    assert alone.shape == (1, network.feature_size) == (1, 8)


def test_every_layer_is_a_stage_and_every_parameter_learns():
    network = SequenceBackbone("lstm", 3, hidden_size=4, layers=2)
    assert [stage.name for stage in network.stages] == ["layers.0", "layers.1"]
    network(network.example_inputs(2)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    owned = [name for stage in network.stages for name in network.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in network.named_parameters())


def test_it_needs_the_size_of_a_step():
    with pytest.raises(GraftError, match=r"backbone\.input_size=auto"):
        SequenceBackbone("lstm")
