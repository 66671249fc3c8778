import pytest
import torch

from graft.backbones.tabular import ft_transformer, mlp
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.columns import Column, Columns
from graft.strategies.adapter import Adapter
from graft.strategies.lora import LoRA
from graft.weights.loading import load_tensors

AGE, SIZE = Column("age", "numeric"), Column("size", "numeric")
JOB = Column("job", "categorical", ("cook", "smith"))
WIDE_JOB = Column("job", "categorical", ("baker", "smith", "weaver"))
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
    expected = 2 * layer.numeric_age.weight[0] + layer.categorical_job.weight[3] + layer.bias
    assert torch.allclose(layer(fields)[0], expected)


@KINDS
def test_what_training_never_saw_adds_nothing_at_first(build):
    modules = dict(build(BOTH).named_modules())
    numeric = next(module for name, module in modules.items() if name.endswith("numeric_age"))
    categorical = next(module for name, module in modules.items() if name.endswith("categorical_job"))
    assert not numeric.weight[1].any()
    assert not categorical.weight[:2].any()


@KINDS
@pytest.mark.parametrize("name", ["type", "values", "weights", "a b", "a.b", "weight", "bias"])
def test_a_column_may_have_any_name(build, name):
    backbone = build(Columns([Column(name, "numeric"), Column(name, "categorical", ("a", "b"))]))
    assert backbone(backbone.example_inputs()).isfinite().all()


def columns_of(backbone):
    return backbone.network.columns if backbone.name == "mlp" else backbone.network.tokens.columns


@KINDS
def test_shared_columns_and_categories_carry_their_weights_over(build):
    theirs, own = build(Columns([AGE, SIZE, JOB])), build(Columns([Column("height", "numeric"), AGE, WIDE_JOB]))
    before = columns_of(own).categorical_job.weight.clone()
    report = load_tensors(own, {"state_dict": theirs.state_dict()}, "file")
    assert torch.equal(columns_of(own).numeric_age.weight, columns_of(theirs).numeric_age.weight)
    after = columns_of(own).categorical_job.weight
    assert torch.equal(after[:2], columns_of(theirs).categorical_job.weight[:2])
    assert torch.equal(after[3], columns_of(theirs).categorical_job.weight[3])  # smith
    assert torch.equal(after[[2, 4]], before[[2, 4]])  # baker and weaver are new
    assert all("numeric_height" in name for name in report.missing)
    assert report.missing
    assert all("numeric_size" in name for name in report.unexpected)
    assert any("categorical_job" in line for line in report.adapted)
    blocks = own.network.block1.state_dict(), theirs.network.block1.state_dict()
    assert all(torch.equal(blocks[0][name], blocks[1][name]) for name in blocks[1])


@KINDS
def test_columns_of_other_names_are_not_matched_by_order(build):
    theirs, own = build(Columns([SIZE])), build(Columns([AGE]))
    before = columns_of(own).numeric_age.weight.clone()
    report = load_tensors(own, {"state_dict": theirs.state_dict()}, "file")
    assert torch.equal(columns_of(own).numeric_age.weight, before)
    assert any("numeric_age" in name for name in report.missing)


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
