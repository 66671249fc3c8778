import logging
import os
import sys

import numpy as np
import pytest
import torch
from torch import nn
from train_app import App

from graft.backbones.base import Backbone, ImageBackbone, Stage
from graft.config import facts

os.environ.setdefault("WANDB_MODE", "offline")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def root_handlers():
    """Handlers that Hydra gave the root logger in a test go with it: they write to streams that are closed then."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)


@pytest.fixture
def app(tmp_path, monkeypatch, capsys):
    """train.py in this process, with a training that takes no time."""
    return App(tmp_path, monkeypatch, capsys)


@pytest.fixture
def own_package():
    """`mypkg` and `broken` are a test's own: what was read of another test's is forgotten, before and after."""

    def forget() -> None:
        facts.forget()
        for name in [name for name in sys.modules if name.partition(".")[0] in ("mypkg", "broken")]:
            del sys.modules[name]

    forget()
    yield
    forget()


@pytest.fixture
def tiny_backbone():
    """Two stages, BatchNorm and dropout, 8x8 grey images to 6 features: everything that freezing has to stop."""

    def build(seed: int = 0, dropout: float = 0.0) -> Backbone:
        torch.manual_seed(seed)
        network = nn.Sequential()
        network.add_module(
            "stem", nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        )
        network.add_module(
            "layer1", nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        )
        network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)))
        stages = [Stage("stem", ("network.stem",)), Stage("layer1", ("network.layer1",))]
        return ImageBackbone("tiny", network, size=8, channels=1, feature_size=6, stages=stages)

    return build


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "plot", "not", "very", "a", "it", "is", "was")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The folder of a random BERT with 2 layers, 16 features and 32 positions, and of its tokenizer of 14 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_bert")
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def tone(hertz: float, seconds: float = 0.3, rate: int = 8000) -> np.ndarray:
    """A quiet sine, float32 `(L,)`."""
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def tones(tmp_path):
    """A folder of 20 tones of two kinds, WAV of 16 bits at 8 kHz, all different: `high_ann_0.wav` and so on."""
    import soundfile

    folder = tmp_path / "tones"
    folder.mkdir()
    for label, hertz in (("high", 1500), ("low", 300)):
        for speaker, shift in (("ann", 0), ("bob", 5)):
            for index in range(5):
                sound = tone(hertz + 20 * index + shift, 0.2 + 0.05 * index)
                soundfile.write(folder / f"{label}_{speaker}_{index}.wav", sound, 8000)
    return folder
