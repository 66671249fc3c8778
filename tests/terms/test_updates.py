"""Further optimizer steps of terms: what they move, what they see, and what around them does not notice."""

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import toy
from torch import nn

from graft.callbacks.nonfinite import NonFinite
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.objectives.alpha import AlphaWeighted
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.terms.base import Term, Update
from graft.weights.averaging import EMA


class Pulls(Term):
    """An added head that the objective's step does not reach; updates move it, then `parts`."""

    weight, needs_inputs = 1.0, False

    def __init__(self, parts=("backbone",), repeat=2, scale=1.0):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.parts, self.repeat, self.scale = parts, repeat, scale
        self.seen, self.steps = [], []

    def forward(self, step):
        return None

    def updates(self):
        return Update(self.loss, ("term/pulls",)), Update(self.loss, self.parts, self.repeat)

    def loss(self, step):
        outputs = self.head(step.features["target"])
        self.seen.append((outputs.dtype, step.features["target"].requires_grad, self.head.weight.detach().clone()))
        return self.scale * (outputs - step.logits["target"]).square().mean()

    def after_step(self, step):
        self.steps.append(step)


class Steps(pl.Callback):
    """Names of the parameters with a gradient, and the trainer's own count, at every optimizer step."""

    def __init__(self):
        self.moved, self.counts, self.norms = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = {name: p for name, p in pl_module.named_parameters() if p.grad is not None and p.grad.any()}
        self.moved.append({".".join(name.split(".")[:2]) for name in named})
        self.counts.append(trainer.global_step)


def fit(backbone, term, callbacks=(), adapting=None, **options):
    """Two batches an epoch."""
    torch.manual_seed(1)
    nn.init.normal_(term.head.weight)
    generator = torch.Generator().manual_seed(0)
    batch = DomainBatch(torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 3)
    module = toy.module_of(backbone, terms={"pulls": term}, strategy=adapting or Full())
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=1, **options)
    trainer.fit(module, {"target": toy.loader_of(batch, 4)})
    return module, trainer


NETWORK, HEAD, TERM = "backbone.network", "heads.shared", "terms.pulls"


def test_each_update_moves_its_parts_alone_and_a_batch_counts_as_one_step(tiny_backbone):
    steps, term = Steps(), Pulls()
    _, trainer = fit(tiny_backbone(), term, [steps])
    assert steps.moved == 2 * [{NETWORK, HEAD}, {TERM}, {NETWORK}, {NETWORK}]
    assert steps.counts == [0] * 4 + [1] * 4
    assert trainer.global_step == 2
    assert term.steps == [1, 2]
    assert [with_gradient for _, with_gradient, _ in term.seen] == 2 * [False, True, True]


def test_what_an_update_leaves_alone_neither_decays_nor_moves_by_its_momentum(tiny_backbone):
    class Watch(Steps):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.moved.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})

    watch = Watch()
    module, _ = fit(tiny_backbone(), Pulls(), [watch])
    states = [*watch.moved, {name: p.detach().clone() for name, p in module.named_parameters()}]
    for number in (1, 2, 3, 5, 6, 7):  # updates, from their gradients on
        part = TERM if number % 4 == 1 else NETWORK
        changed = {name for name, p in states[number].items() if not torch.equal(p, states[number + 1][name])}
        assert changed
        assert all(name.startswith(part) for name in changed)


def test_an_update_sees_the_weights_that_the_one_before_it_left(tiny_backbone):
    term = Pulls()
    fit(tiny_backbone(), term)
    before, after, again = (weight for _, _, weight in term.seen[:3])
    assert not torch.equal(before, after)
    assert torch.equal(after, again)


def test_frozen_parts_do_not_move_and_an_update_of_them_alone_is_left_out(tiny_backbone):
    steps = Steps()
    fit(tiny_backbone(), Pulls(), [steps], adapting=Frozen())
    assert steps.moved == 2 * [{HEAD}, {TERM}]


def test_every_update_is_clipped_by_itself(tiny_backbone):
    class Norms(Steps):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            self.read(pl_module)

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.read(pl_module)

        def read(self, module):
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            self.norms += [nn.utils.get_total_norm(grads).item()] if grads else []

    norms = Norms()
    fit(tiny_backbone(), Pulls(scale=100.0), [norms], gradient_clip_val=0.01)
    assert norms.norms
    assert all(norm == pytest.approx(0.01, rel=1e-3) for norm in norms.norms)


def test_batchnorm_statistics_move_with_every_forward_and_an_average_once_a_batch(tiny_backbone):
    average = EMA(0.5)
    module, _ = fit(tiny_backbone(), Pulls(), [average])
    assert module.backbone.state_dict()["network.stem.1.num_batches_tracked"] == 2 * (1 + 1 + 2)
    assert average._step == 2


def test_the_layout_in_memory_changes_nothing(tiny_backbone):
    plain, _ = fit(tiny_backbone(), Pulls())
    last, _ = fit(tiny_backbone().to(memory_format=torch.channels_last), Pulls())
    for ours, theirs in zip(last.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_updates_compute_in_the_runs_precision(tiny_backbone):
    term = Pulls()
    fit(tiny_backbone(), term, precision="bf16-mixed")
    assert {dtype for dtype, _, _ in term.seen} == {torch.bfloat16}


def test_a_batch_with_an_update_that_is_not_finite_is_left_out_once(tiny_backbone, tmp_path):
    guard, term = NonFinite(tmp_path, "skip"), Pulls(scale=float("nan"))
    guard.first = {"message": "seen before"}  # the first one's report would draw the batch again, from a data module
    module, _ = fit(tiny_backbone(), term, [guard])
    assert guard.skipped == 2
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_part_that_is_not_there_is_refused_before_training(tiny_backbone):
    with pytest.raises(GraftError, match=r"term\.pulls.*'backbone/layer9'.*backbone/stem, backbone/layer1, term/pulls"):
        fit(tiny_backbone(), Pulls(parts=("backbone/layer9",)))


def test_a_term_draws_a_domain_that_the_objective_gives_no_weight_and_its_loss_is_not_computed(tiny_backbone):
    class Both(Term):
        weight, domains = 1.0, ("source", "target")

        def forward(self, step):
            return sum(features.mean() for features in step.features.values())

    module = toy.module_of(tiny_backbone(), terms={"both": Both()}, objective=AlphaWeighted(0.0))
    batch = DomainBatch(torch.randn(8, 1, 8, 8), torch.arange(8) % 3)
    trainer = toy.trainer_on_cpu(max_epochs=1)
    trainer.fit(module, {"target": toy.loader_of(batch, 4), "source": toy.loader_of(batch, 4)})
    assert set(module.step_losses) == {"target", "term both"}


class ByRank(Pulls):
    """Its loss differs from process to process: 1 and 2 times as large."""

    def loss(self, step):
        return (1 + dist.get_rank()) * super().loss(step)


class SaveWeights(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        torch.save(dict(pl_module.named_parameters()), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")  # of Lightning, about forked processes
def test_processes_take_the_step_of_their_mean_loss(tiny_backbone, tmp_path):
    options = {"devices": 2, "strategy": "ddp_fork_find_unused_parameters_true", "use_distributed_sampler": False}
    torch.manual_seed(0)
    fit(tiny_backbone(), ByRank(), [SaveWeights(tmp_path)], **options)
    torch.manual_seed(0)
    alone, _ = fit(tiny_backbone(), Pulls(scale=1.5))
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach(), rtol=1e-4, atol=1e-6)
