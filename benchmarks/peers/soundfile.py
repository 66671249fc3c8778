"""The usual way to load recordings: read and resampled anew whenever they come, spectrograms made batch by batch."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.graft import exhaust
from benchmarks.turns import Plan, Turn
from graft.data.readers.recordings import decode, resampled
from graft.inputs.audio.mel import Mel, relative_decibels

RATE, SAMPLES = 16_000, 16_000  # a second, and of a clip
MEL = Mel(RATE, window=400, fft=512, hop=160, n_mels=64)  # that of conf/backbone/mel_cnn.yaml


class Recordings(Dataset):
    """Clips `(SAMPLES,)` of the files in a folder a class, with zeros behind them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.wav"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        wave = torch.from_numpy(resampled(*decode(self.files[index]), RATE))[:SAMPLES]
        return torch.nn.functional.pad(wave, (0, SAMPLES - len(wave))), int(self.files[index].parent.name)


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Images `(B, 1, bands, frames)` of clips, and their labels."""
    clips, labels = zip(*samples, strict=True)
    return relative_decibels(MEL(torch.stack(clips))).sub_(0.5).div_(0.5).unsqueeze(1), torch.tensor(labels)


def load(plan: Plan, turn: Turn) -> None:
    """Load epoch after epoch until no turn is left; `plan.images` is the folder of recordings."""
    loader = DataLoader(
        Recordings(plan.images / "train"), plan.batch_size, shuffle=True, num_workers=0, collate_fn=collate
    )
    for _ in range(plan.epochs):
        turn.begin()
        exhaust(loader)
