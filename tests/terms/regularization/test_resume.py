"""A run with a term, killed at any step, goes on exactly as the one that was not."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from graft.data.digits import Digits
from graft.data.module import TransferDataModule
from graft.module import TransferModule
from graft.objective import AlphaWeighted
from graft.rates.uniform import Uniform
from graft.schedules import OneCycle
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.tasks import Multiclass
from graft.terms.base import Setup
from graft.terms.regularization.bi_tuning import BiTuning
from graft.terms.regularization.co_tuning import CoTuning
from graft.terms.regularization.lwf import LwF
from graft.terms.regularization.stochnorm import StochNorm

TERMS = {"lwf": LwF, "co_tuning": CoTuning, "stochnorm": StochNorm, "bi_tuning": BiTuning}
STATE = ("backbone.", "heads.", "terms.")


def fit(names, backbone, callbacks=(), resume=None):
    """Three steps an epoch on real digits with augmentation; an epoch of the head alone, then one of everything."""
    torch.manual_seed(0)
    head = nn.Linear(backbone.feature_size, 10)
    backbone.set_classifier(nn.Linear(backbone.feature_size, 4))
    data = TransferDataModule(Digits(), batch_size=10, labels_per_class=3, augment="light", eval_batch_size=512)
    data.load()
    data.set_input(backbone.input_spec)
    setup = Setup(
        backbone=backbone,
        heads={"target": head},
        target_head=head,
        classifier=backbone.classifier,
        pretrained=True,
        num_classes=10,
        samples=lambda: data.plain_batches("target", "train"),
        source_samples=None,
    )
    terms = {name: TERMS[name]() for name in names}
    for term in terms.values():
        term.prepare(setup)
    module = TransferModule(
        backbone=backbone,
        heads={"target": head},
        tasks={"target": Multiclass()},
        outputs={"target": 10},
        objective=AlphaWeighted(0.0),
        strategy=LinearProbeThenFineTune(0.5),
        rates=Uniform(),
        schedule=OneCycle(),
        optimizer={
            "_target_": "torch.optim.AdamW",
            "lr": 0.01,
            "weight_decay": 0.01,
            "decay_norms_and_biases": False,
            "options": {},
        },
        terms=terms,
    )
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=list(callbacks),
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return {name: value for name, value in module.state_dict().items() if name.startswith(STATE)}


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")  # resuming saves nothing here
@pytest.mark.parametrize("names", [*[[name] for name in TERMS], [*TERMS]], ids="+".join)
def test_a_run_killed_at_any_step_goes_on_as_if_it_had_not_been(names, tiny_backbone, tmp_path):
    files = {"filename": "{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, **files)
    whole = fit(names, tiny_backbone(dropout=0.5), [every_step])
    without = fit([], tiny_backbone(dropout=0.5))
    assert not torch.equal(whole["backbone.network.stem.0.weight"], without["backbone.network.stem.0.weight"])
    for step in (1, 3, 5):  # inside either phase and between them
        resumed = fit(names, tiny_backbone(dropout=0.5), resume=tmp_path / f"{step}.ckpt")
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items()), f"killed after step {step}"
