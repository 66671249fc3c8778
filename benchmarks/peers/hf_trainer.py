"""Hugging Face's Trainer with its progress bar, nothing reported and nothing saved."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks import networks
from benchmarks.peers.bare import tensors
from benchmarks.turns import Plan, Turn


class Items(Dataset):
    """Samples by name, as the Trainer wants them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": self.images[index], "labels": self.labels[index]}


class WithLoss(nn.Module):
    """A network that returns its loss, as the Trainer wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and predictions."""
        logits = self.network(images)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def fit(plan: Plan, turn: Turn) -> None:
    """The Trainer with the same SGD: constant rate, no clipping."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Turns(TrainerCallback):
        """Takes a turn at the begin of each epoch."""

        def on_epoch_begin(self, *arguments: object, **options: object) -> None:
            turn.begin()

    settings = TrainingArguments(
        output_dir=str(plan.folder),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=plan.batch_size,
        optim="sgd",
        learning_rate=plan.lr,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=False,
    )
    model = WithLoss(networks.build(plan.network))
    Trainer(model=model, args=settings, train_dataset=Items(*tensors(plan)), callbacks=[Turns()]).train()
