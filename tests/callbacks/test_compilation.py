"""torch.compile changes speed and nothing else; `aot_eager` compiles all but the last, slow step to machine code."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import toy
from lanes import slow
from torch.utils.data import DataLoader

from graft.callbacks.compilation import Compilation, break_even, sentence
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.objectives.alpha import AlphaWeighted
from graft.strategies.full import Full
from graft.strategies.gradual import Gradual
from graft.strategies.lp_ft import LinearProbeThenFineTune

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own


def loader(domain, size=10):
    torch.manual_seed(len(domain))
    return toy.loader_of(DomainBatch(torch.randn(size, 1, 8, 8), torch.arange(size) % 3), 4)


def fit(tiny_backbone, *callbacks, strategy=None, bn="joint", alpha=0.0, epochs=4):
    backbone = tiny_backbone(dropout=0.5)
    torch.manual_seed(1)
    module = toy.module_of(backbone, strategy=strategy or Full(), objective=AlphaWeighted(alpha), bn=bn)
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=epochs)
    validation = DataLoader([{"target": DomainBatch(torch.randn(7, 1, 8, 8), torch.arange(7) % 3)}], batch_size=None)
    trainer.fit(module, {domain: loader(domain) for domain in module.objective.domains()}, validation)
    return module


CASES = {
    "full": {},
    "lp_ft": {"strategy": LinearProbeThenFineTune(0.5)},
    "gradual": {"strategy": Gradual(every_epochs=1)},
    "joint": {"alpha": 0.5},
    "separate": {"alpha": 0.5, "bn": "separate"},
    "domain_specific": {"alpha": 0.5, "bn": "domain_specific"},
}


@pytest.mark.parametrize("case", slow(*CASES))
def test_a_compiled_run_is_the_uncompiled_one(tiny_backbone, capsys, case):
    """Three batches an epoch, the last one smaller; measuring leaves weights, statistics and random numbers."""
    plain = fit(tiny_backbone, **CASES[case]).state_dict()
    module = fit(tiny_backbone, compilation := Compilation("aot_eager"), **CASES[case])
    assert module.state_dict().keys() == plain.keys()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5, msg=name)
    assert compilation.measured["steps"] == 12
    assert compilation.measured["steps_per_epoch"] == 3
    assert "torch.compile took" in capsys.readouterr().out
    assert module.backbone._compiled_call_impl is None


@pytest.mark.slow
def test_while_training_the_backbone_is_compiled_and_its_copies_are_not(tiny_backbone):
    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert pl_module.backbone._compiled_call_impl is not None
            assert copy.deepcopy(pl_module.backbone)._compiled_call_impl is None

    fit(tiny_backbone, Compilation("aot_eager"), Look(), epochs=1)


def test_what_torch_cannot_compile_is_one_clear_error(tiny_backbone):
    def no_compiler(graph, inputs):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    with pytest.raises(GraftError, match=r"training.compile=true: torch.compile fails on tiny .*g\+\+"):
        fit(tiny_backbone, Compilation(no_compiler))


class Fit:
    """What break_even asks a Trainer."""

    num_training_batches, max_epochs = 10, 5
    fit_loop = type("Loop", (), {"epoch_loop": type("Loop", (), {"total_batch_idx": 20})})


def test_the_break_even_counts_what_is_left():
    measured = break_even(cost=3.0, eager=0.2, compiled=0.1, trainer=Fit())
    assert measured["pays_off_after"] == 30
    assert sentence(measured) == (
        "torch.compile took 3.0 s; forward and backward of a step take 100.0 ms instead of 200.0 ms: "
        "pays off after 30 steps (3.0 epochs); this run has 30."
    )


def test_what_is_slower_never_pays_off():
    measured = break_even(cost=3.0, eager=0.1, compiled=0.2, trainer=Fit())
    assert measured["pays_off_after"] is None
    assert sentence(measured).endswith("it does not pay off here.")


@pytest.mark.slow
def test_compiling_to_machine_code(tiny_backbone):
    plain = fit(tiny_backbone, epochs=1).state_dict()
    module = fit(tiny_backbone, compilation := Compilation(), epochs=1)
    assert module.state_dict().keys() == plain.keys()
    assert compilation.measured["compile_s"] > 0
