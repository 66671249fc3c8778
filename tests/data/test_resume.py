"""A run that resumes draws exactly what the uninterrupted run drew, augmentation included."""

import hashlib

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from graft.data.module import TransferDataModule

from .conftest import Numbers

EPOCHS, STEPS = 3, 4  # 20 target samples in batches of 6: the last batch has 2
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*"),  # resuming saves nothing here
]


class Recorder(pl.LightningModule):
    """Notes the hash of every training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        digest = hashlib.sha256()
        for _, one in sorted(batch.items()):
            digest.update(one.inputs.numpy().tobytes() + one.labels.numpy().tobytes())
            for _, view in sorted(one.views.items()):
                digest.update(view.numpy().tobytes())
        self.seen.append((self.current_epoch, batch_idx, digest.hexdigest()))
        torch.rand(self.current_epoch + 3)  # the model's own randomness must not matter
        return sum(one.inputs.mean() for one in batch.values()) * self.weight

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        torch.rand(5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(spec, folder, checkpoint=None, workers=0, resume=None, epochs=EPOCHS, augment="light"):
    data = TransferDataModule(
        Numbers(20), Numbers(33, first=100), batch_size=6, source_batch_size=5, augment=augment, num_workers=workers
    )
    data.load()
    data.views = {"target": ("weak", "strong")}
    data.set_input(spec)
    data.train_domains = ("target", "source")
    return batches_seen(data, folder, epochs, checkpoint, resume)


def batches_seen(data, folder, epochs, checkpoint=None, resume=None):
    model = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        callbacks=[checkpoint] if checkpoint else [],
        enable_checkpointing=checkpoint is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return model.seen


def every_step(folder):
    names = {"filename": "step{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    return ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, **names)


def test_every_step_resumes_exactly(spec, tmp_path):
    whole = fit(spec, tmp_path, every_step(tmp_path / "ckpt"))
    assert len({digest for _, _, digest in whole}) == EPOCHS * STEPS
    for step in range(1, EPOCHS * STEPS):
        resumed = fit(spec, tmp_path, resume=tmp_path / "ckpt" / f"step{step}.ckpt")
        assert resumed == whole[step:], f"resumed after step {step}"


@pytest.mark.parametrize("at_train_end", [True, False], ids=["train epoch end", "validation end"])
def test_epoch_ends_resume_exactly(spec, tmp_path, at_train_end):
    checkpoint = ModelCheckpoint(
        tmp_path / "ckpt", "{epoch}", save_top_k=-1, save_on_train_epoch_end=at_train_end, auto_insert_metric_name=False
    )
    whole = fit(spec, tmp_path, checkpoint)
    for epoch in range(EPOCHS - 1):
        resumed = fit(spec, tmp_path, resume=tmp_path / "ckpt" / f"{epoch}.ckpt")
        assert resumed == whole[(epoch + 1) * STEPS :], f"resumed after epoch {epoch}"


def test_resumed_run_that_is_stopped_again_resumes_exactly(spec, tmp_path):
    whole = fit(spec, tmp_path, every_step(tmp_path / "ckpt"))
    for step in (3, 5, 8):
        (tmp_path / "ckpt" / f"step{step}.ckpt").unlink()
    fit(spec, tmp_path, every_step(tmp_path / "ckpt"), resume=tmp_path / "ckpt" / "step2.ckpt")
    for step in (3, 5, 8):
        assert fit(spec, tmp_path, resume=tmp_path / "ckpt" / f"step{step}.ckpt") == whole[step:]


@pytest.mark.slow
def test_workers_draw_and_resume_the_same(spec, tmp_path):
    by_image = {"augment": "randaugment"}  # what workers are for
    whole = fit(spec, tmp_path, **by_image)
    assert fit(spec, tmp_path, every_step(tmp_path / "ckpt"), workers=2, **by_image) == whole
    for step in (2, 4, 5):
        assert fit(spec, tmp_path, workers=2, resume=tmp_path / "ckpt" / f"step{step}.ckpt", **by_image) == whole[step:]
