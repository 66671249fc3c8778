import copy
import math

import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.heads.linear import LinearHead
from graft.heads.mlp import MLPHead
from graft.terms.regularization.bi_tuning import BiTuning, Keys, contrast
from graft.weights.loading import load_weights


def unit(vector):
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def loss_of_one(query, positives, negatives, temperature):
    """-1/|K_p| sum over k+ of log( exp(q.k+ / T) / sum over all keys of exp(q.k / T) )."""
    total = sum(math.exp(dot(query, k) / temperature) for k in [*positives, *negatives])
    return -sum(math.log(math.exp(dot(query, k) / temperature) / total) for k in positives) / len(positives)


def test_contrast_is_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    query, own = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    keys = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    labels, classes = [0, 1, 1, 2], [0, 0, 1, 1, 1, 3]  # nothing stored yet for the last sample's class
    expected = 0.0
    for n, label in enumerate(labels):
        positives = [own[n].tolist()] + [k.tolist() for k, c in zip(keys, classes, strict=True) if c == label]
        negatives = [k.tolist() for k, c in zip(keys, classes, strict=True) if c != label]
        expected += loss_of_one(query[n].tolist(), positives, negatives, 0.5) / len(labels)
    positive = torch.tensor([[label == c for c in classes] for label in labels])
    assert contrast(query, own, keys, positive, 0.5).item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda *a: contrast(*a, positive, 0.5), [t.requires_grad_() for t in (query, own, keys)]
    )


def test_without_stored_keys_there_is_nothing_to_contrast():
    query = torch.randn(4, 3)
    assert contrast(query, query, torch.zeros(0, 3), torch.zeros(4, 0, dtype=torch.bool), 0.07) == 0


def stored_values(keys):
    """First element of every stored key by class, oldest slot first."""
    h, _, classes = keys.stored()
    return {c: [v.item() for v, own in zip(h[:, 0], classes, strict=True) if own == c] for c in classes.tolist()}


def add(keys, values, labels):
    column = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
    keys.add(column, -column, torch.tensor(labels))


def test_each_class_has_a_queue_that_forgets_its_oldest_keys():
    keys = Keys(num_classes=3, length=3, h_size=1, z_size=1)
    assert stored_values(keys) == {}
    add(keys, [1, 2, 3], [0, 2, 0])
    assert stored_values(keys) == {0: [1, 3], 2: [2]}
    add(keys, [4, 5], [0, 0])  # the third place, then over the oldest
    assert stored_values(keys) == {0: [5, 3, 4], 2: [2]}
    assert keys.seen.tolist() == [4, 0, 1]
    add(keys, [6, 7, 8, 9, 10], [2, 2, 2, 2, 2])  # more than fit: the newest three stay
    assert sorted(stored_values(keys)[2]) == [8, 9, 10]
    add(keys, [11], [2])
    assert sorted(stored_values(keys)[2]) == [9, 10, 11]
    h, z, _ = keys.stored()
    assert torch.equal(z, -h)


def test_the_value_is_both_losses_against_the_keys_of_earlier_steps(make_setup, make_step):
    context = make_setup(dtype=torch.float64)
    term = BiTuning(temperature=0.3, momentum=0.9, keys_per_class=5, projection_size=4)
    term.prepare(context)
    term.double().train()
    backbone, head = context.backbone, context.target_head
    queues = {label: [] for label in range(3)}  # of (h, z), newest last
    slow = copy.deepcopy(nn.ModuleDict({"backbone": backbone, "projector": term.projector}))
    optimizer = torch.optim.SGD([*backbone.parameters(), *term.projector.parameters()], lr=0.1)
    for number in range(4):
        step = make_step(context, seed=number)
        value = term(step)

        with torch.no_grad():
            live = {"backbone": backbone, "projector": term.projector}
            for name, module in slow.items():
                for own, trained in zip(module.parameters(), live[name].parameters(), strict=True):
                    own.copy_(0.9 * own + 0.1 * trained)
            key_features = slow["backbone"](step.inputs["target"])
            key_h = [unit([*row, 1.0]) for row in key_features.tolist()]
            key_z = [unit(row) for row in slow["projector"](key_features).tolist()]
            query_h = [unit([*row, 1.0]) for row in step.features["target"].tolist()]
            query_z = [unit(row) for row in term.projector(step.features["target"]).tolist()]
            vectors = [unit([*w, b]) for w, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)]
        expected = 0.0
        labels = step.labels["target"].tolist()
        for n, label in enumerate(labels):
            same, other = queues[label], [pair for c in range(3) if c != label for pair in queues[c]]
            discriminative = loss_of_one(
                vectors[label], [query_h[n], *(h for h, _ in same)], [h for h, _ in other], 0.3
            )
            categorical = loss_of_one(query_z[n], [key_z[n], *(z for _, z in same)], [z for _, z in other], 0.3)
            expected += (discriminative + categorical) / len(labels)
        assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        for n, label in enumerate(labels):
            queues[label] = [*queues[label], (key_h[n], key_z[n])][-5:]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value > 0.1


def test_gradients_reach_backbone_and_projector_but_neither_key_encoder_nor_classifier(make_setup, make_step):
    context = make_setup(dtype=torch.float64)
    term = BiTuning()
    term.prepare(context)
    term.double().train()
    context.backbone.train()
    term(make_step(context, seed=1))
    term(make_step(context)).backward()
    assert all(
        p.grad is not None and p.grad.any() for p in [*context.backbone.parameters(), *term.projector.parameters()]
    )
    assert all(p.grad is None and not p.requires_grad for p in term.key_backbone.parameters())
    assert all(p.grad is None and not p.requires_grad for p in term.key_projector.parameters())
    assert all(p.grad is None for p in context.target_head.parameters())
    assert [name for name, p in term.named_parameters() if p.requires_grad] == ["projector.weight", "projector.bias"]


def test_layers_that_come_after_the_copy_was_made_are_not_looked_for_in_it(make_setup, make_step):
    context = make_setup()
    term = BiTuning()
    term.prepare(context)
    context.backbone.stochastic_depth = nn.Identity()  # as graft.backbones.stochastic_depth adds them
    assert term(make_step(context)).isfinite()


def test_the_key_encoder_freezes_what_the_strategy_froze(make_setup, make_step):
    context = make_setup()
    term = BiTuning()
    term.prepare(context)
    term.train()
    context.backbone.train()
    context.backbone.network.stem.eval()
    before = copy.deepcopy(term.key_backbone.state_dict())
    term(make_step(context))
    moved = {name for name, value in term.key_backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"network.layer1.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_a_state_dict_holds_all_that_the_next_step_depends_on(make_setup, make_step):
    def prepared():
        context = make_setup()
        term = BiTuning(keys_per_class=4)
        term.prepare(context)
        context.backbone.train()
        return context, term.train()

    context, term = prepared()
    optimizer = torch.optim.SGD([*context.backbone.parameters(), *term.projector.parameters()], lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        term(make_step(context, seed=number)).backward()
        optimizer.step()
    states = [copy.deepcopy(module.state_dict()) for module in (context.backbone, term)]
    expected = term(make_step(context, seed=9))

    resumed_setup, resumed = prepared()
    resumed_setup.backbone.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    assert torch.equal(resumed(make_step(resumed_setup, seed=9)), expected)
    assert all(torch.equal(value, term.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert not any(name.startswith("_trained") for name in states[1])


@pytest.mark.parametrize("head", [nn.Linear(6, 3), LinearHead(6, 3)])
def test_takes_a_linear_head(make_setup, make_step, head):
    context = make_setup(target_head=head)
    term = BiTuning()
    term.prepare(context)
    assert term(make_step(context)).isfinite()


@pytest.mark.parametrize(
    "changes",
    [{"num_classes": None}, {"target_head": MLPHead(6, 3)}, {"target_head": nn.Linear(6, 1), "num_classes": 2}],
)
def test_refuses_a_target_without_classes_and_a_head_without_a_vector_for_each(make_setup, changes):
    with pytest.raises(GraftError, match="head=linear and task=multiclass"):
        BiTuning().prepare(make_setup(**changes))


def test_refuses_mixed_and_missing_labels(make_setup, make_step):
    context = make_setup()
    term = BiTuning()
    term.prepare(context)
    with pytest.raises(GraftError, match="mixup"):
        term(make_step(context, labels=torch.full((8, 3), 1 / 3)))
    with pytest.raises(GraftError, match=r"data\.target_setting=supervised"):
        term(make_step(context, unlabelled=True))


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"momentum": 1.5}, {"keys_per_class": 0}, {"projection_size": 0}]
)
def test_refuses_settings_out_of_range(options):
    (key,) = options
    with pytest.raises(GraftError, match=f"term.bi_tuning.{key}={options[key]}"):
        BiTuning(**options)


def test_weights_from_a_checkpoint_are_the_trained_backbones_and_not_the_slow_copys(tiny_backbone, tmp_path):
    trained, slow = (tiny_backbone(seed=seed).state_dict() for seed in (1, 2))
    state = {f"backbone.{name}": value for name, value in trained.items()}
    state |= {f"terms.bi_tuning.key_backbone.{name}": value for name, value in slow.items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    backbone = tiny_backbone()
    load_weights(backbone, str(tmp_path / "best.ckpt"))
    assert all(torch.equal(value, trained[name]) for name, value in backbone.state_dict().items())
