import copy

import pytest
import torch

from graft.backbones.tabular import ft_transformer, mlp
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.columns import Column, Columns
from graft.strategies.adapter import Adapter
from graft.strategies.lora import LoRA
from graft.training.optim import is_norm_or_bias
from graft.weights.loading import load_tensors

AGE, SIZE = Column("age", "numeric"), Column("size", "numeric")
JOB = Column("job", "categorical", ("cook", "smith"))
WIDE_JOB = Column("job", "categorical", ("baker", "smith", "weaver"))
OTHER_JOB = Column("second job", "categorical", ("cook", "smith"))
BOTH = Columns([AGE, JOB])
KINDS = pytest.mark.parametrize("build", [mlp, ft_transformer])


@KINDS
@pytest.mark.parametrize("columns", [BOTH, Columns([AGE]), Columns([JOB])], ids=["both", "numeric", "categorical"])
def test_features_and_gradients(build, columns):
    backbone = build(columns)
    features = backbone(backbone.example_inputs(3))
    assert features.shape == (3, backbone.feature_size)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@KINDS
def test_every_parameter_is_in_one_stage(build):
    backbone = build(BOTH)
    named = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(named) == sorted(name for name, _ in backbone.named_parameters())


def test_the_sum_is_a_linear_layer_on_numbers_and_categories():
    layer = mlp(BOTH).network.columns
    fields = Fields(
        {
            "numbers": torch.tensor([[2.0]]),
            "missing": torch.tensor([[0.0]]),
            "codes": torch.tensor([[3]]),
        }
    )
    expected = 2 * layer.numeric.weight[0] + layer.categorical.weight[3] + layer.bias
    assert torch.allclose(layer(fields)[0], expected)


@KINDS
def test_what_training_never_saw_adds_nothing_at_first(build):
    columns = columns_of(build(Columns([AGE, JOB, OTHER_JOB])))
    assert not columns.numeric.missing.any()
    assert [bool(row.any()) for row in columns.categorical.weight] == [False, False, True, True] * 2


@KINDS
@pytest.mark.parametrize("name", ["type", "values", "weights", "a b", "a.b", "weight", "bias"])
def test_a_column_may_have_any_name(build, name):
    backbone = build(Columns([Column(name, "numeric"), Column(name, "categorical", ("a", "b"))]))
    assert backbone(backbone.example_inputs()).isfinite().all()


def columns_of(backbone):
    return backbone.network.columns if backbone.name == "mlp" else backbone.network.tokens.columns


@KINDS
def test_shared_columns_and_categories_carry_their_weights_over(build):
    theirs = build(Columns([AGE, SIZE, OTHER_JOB, JOB]))
    own = build(Columns([Column("height", "numeric"), AGE, WIDE_JOB]))
    before = copy.deepcopy(columns_of(own))
    report = load_tensors(own, {"state_dict": theirs.state_dict()}, "file")
    file, loaded = columns_of(theirs), columns_of(own)
    for name, rows in loaded.numeric.named_parameters():
        assert torch.equal(rows[1], file.numeric.get_parameter(name)[0])  # age
        assert torch.equal(rows[0], before.numeric.get_parameter(name)[0])  # height is new
    rows, own_rows, their_rows = loaded.categorical.weight, before.categorical.weight, file.categorical.weight
    assert torch.equal(rows[:2], their_rows[4:6])  # of the job, behind the four rows of the second job
    assert torch.equal(rows[3], their_rows[7])  # smith
    assert torch.equal(rows[[2, 4]], own_rows[[2, 4]])  # baker and weaver are new
    assert torch.equal(loaded.numeric.names, before.numeric.names)
    assert torch.equal(loaded.categorical.names, before.categorical.names)
    assert [name.rpartition(".")[2] for name in report.missing] == ["numeric_height"]
    assert report.matched == report.total
    assert any("categorical.weight: 8x" in line for line in report.adapted)
    blocks = own.network.block1.state_dict(), theirs.network.block1.state_dict()
    assert all(torch.equal(blocks[0][name], blocks[1][name]) for name in blocks[1])


@KINDS
def test_columns_of_other_names_are_not_matched_by_order(build):
    theirs, own = build(Columns([SIZE])), build(Columns([AGE]))
    before = copy.deepcopy(columns_of(own).numeric.state_dict())
    report = load_tensors(own, {"state_dict": theirs.state_dict()}, "file")
    assert all(torch.equal(value, before[name]) for name, value in columns_of(own).numeric.state_dict().items())
    assert any("numeric_age" in name for name in report.missing)
    assert any("numeric.weight" in name for name in report.missing)


@KINDS
def test_columns_of_another_width_are_reported(build):
    theirs, own = build(BOTH, width=16), build(BOTH, width=32)
    with pytest.raises(GraftError, match="no tensor fits"):
        load_tensors(own, {"state_dict": theirs.state_dict()}, "file")


def test_a_file_with_a_tensor_for_each_column_is_refused():
    own = mlp(BOTH)
    blocks = {name: value for name, value in own.network.state_dict().items() if name.startswith("block")}
    with pytest.raises(GraftError, match=r"columns\.numeric_age\.weight, a tensor of one column"):
        load_tensors(own, {**blocks, "columns.numeric_age.weight": torch.zeros(2, 128)}, "file")


@KINDS
def test_weight_decay_spares_the_biases_of_columns(build):
    decayed = {name for name, parameter in build(BOTH).named_parameters() if not is_norm_or_bias(name, parameter)}
    assert all(any(f"{part}.weight" in name for name in decayed) for part in ("numeric", "categorical"))
    assert not any(name.endswith("bias") for name in decayed)


@pytest.mark.parametrize("number", [10, 1000])
def test_the_number_of_modules_does_not_depend_on_that_of_columns(number):
    backbone = mlp(Columns([Column(f"g{i}", "numeric") for i in range(number)]))
    assert len(list(backbone.modules())) < 20
    assert len(backbone.state_dict()) < 20


@KINDS
def test_lora_reaches_the_layers_and_merges(build):
    pytest.importorskip("peft")
    backbone = build(BOTH).eval()
    inputs = backbone.example_inputs(3)
    before = backbone(inputs)
    strategy = LoRA(r=2)
    strategy.prepare(backbone)
    added = [name for name, _ in backbone.named_parameters() if "lora" in name]
    assert added
    assert torch.allclose(backbone(inputs), before, atol=1e-5)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    tuned = backbone.eval()(inputs)
    assert not torch.allclose(tuned, before, atol=1e-3)
    strategy.merge(backbone)
    assert torch.allclose(backbone(inputs), tuned, atol=1e-4)


@KINDS
def test_adapters_follow_the_blocks(build):
    backbone = build(BOTH)
    Adapter(bottleneck=4).prepare(backbone)
    assert backbone(backbone.example_inputs()).shape == (2, backbone.feature_size)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(GraftError, match=r"backbone\.width=10: must be a multiple of backbone\.heads=4"):
        ft_transformer(BOTH, width=10, heads=4)
