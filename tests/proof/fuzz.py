"""`make fuzz`: random compositions of all config groups train two steps or are refused in one message.

Everything happens in one process, so that what a case leaves behind meets the next. A case fails where it raises
anything but a user's mistake, is refused after training began, or does not end. The seed is printed and makes the same
cases again.
"""

import argparse
import contextlib
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

import graft
from graft import pretrain, run
from graft.data.module import TransferDataModule
from graft.errors import Diverged, GraftError
from graft.locations import CONF
from graft.report import plots
from graft.training.trainer import quieten_lightning

CASES = 500
LIMIT_S = 300
STEPS = [
    "training.epochs=2",
    "trainer.precision=32-true",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "pretrain.epochs=1",
    "data.batch_size=8",
    "data.eval_batch_size=16",
    "training.threads=1",
    "save.model=none",
]

# Groups of which each case takes any option, and how often: the rest stays as conf/train.yaml has it.
GROUPS = {
    "head": 0.3,
    "task": 0.05,
    "objective": 0.15,
    "averaging": 0.3,
    "optimizer": 0.4,
    "scheduler": 0.4,
    "rates": 0.3,
    "selection": 0.3,
    "pretrain": 0.05,
}
# Trainers of one process on a CPU, or on a GPU, which is refused where there is none.
TRAINERS = (*["cpu"] * 9, "gpu")
LOGGERS = ("csv", "[]", "tensorboard", "[csv,tensorboard]")
WAITS = ("trainer.devices", "trainer.num_nodes")  # for processes and machines that nobody starts
# What a single key is given, mostly wrongly.
VALUES = ("null", "-1", "0", "abc", "[]", "{}", "true", "0.5", "1", "2", "1e-3", "''", "nan")
OPTIONS = {
    "bn": ("joint", "separate", "domain_specific"),
    "backbone.weights": ("null", "source", "imagenet", "pretrained"),
    "cache.features": ("true", "false"),
    "cache.augmented_views": ("0", "2"),
    "data.augment": ("none", "light", "crop", "randaugment", "specaugment"),
    "data.balance": ("none", "weights", "sampler"),
    "data.epoch": ("target", "source", "longest", "3"),
    "data.labels_per_class": ("null", "1", "3"),
    "data.target_setting": ("supervised", "semi", "unsupervised"),
    "data.test_shifts": ("[]", "[colour]", "[noise]"),
    "head.sharing": ("auto", "shared", "separate"),
    "objective.alpha": ("0", "0.5", "1"),
    "objective.alpha_end": ("null", "0.2"),
    "training.accumulate_batches": ("1", "2"),
    "training.cutmix_alpha": ("null", "1.0"),
    "training.gradient_checkpointing": ("false", "true"),
    "training.gradient_clip_norm": ("null", "1.0"),
    "training.mixup_alpha": ("null", "0.2"),
    "training.on_nonfinite": ("stop", "skip", "continue"),
    "training.patience": ("null", "1"),
    "training.recalibrate_bn": ("auto", "null"),
    "training.progressive_resizing.initial_scale": ("null", "0.5"),
    "training.stochastic_depth": ("0", "0.3"),
    "training.wise_ft_alphas": ("null", "[0,0.5,1]"),
    "tune": ("null", "lr"),
    "optimizer.lr": ("1e-3", "auto"),
}
# Backbones by what they take; the large ones are drawn less often.
BACKBONES = {
    "image": [*["lenet", "cnn", "timm"] * 3, "resnet18", "mobilenet_v2", "torchvision", "vit"],
    "table": ["mlp", "mlp", "ft_transformer"],
    "text": ["gru", "gru", "gru", "lstm", "lstm", "lstm", "bert"],
    "audio": ["mel_cnn", "mel_mobilenet_v2", "speaker_lstm", "speaker_lstm", "wav2vec2"],
    "sequence": ["gru_sequence", "lstm_sequence"],
}


NAMES = {"timm": ["backbone.name=test_resnet"], "torchvision": ["backbone.name=shufflenet_v2_x0_5"]}


class Hung(BaseException):
    """A case that does not end; no Exception, so that nothing takes it for a failure to go on after."""


def hang(signum: int, frame: FrameType | None) -> None:
    """Handler of the case's alarm."""
    raise Hung(f"after {LIMIT_S} s")


def options_of(group: str) -> list[str]:
    """What a group has to choose from."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def make_data(folder: Path) -> dict[str, list[list[str]]]:
    """Tiny data of every modality, as overrides that choose them."""
    draw = np.random.default_rng(0)
    for label in ("circle", "square", "star"):
        (folder / "images" / label).mkdir(parents=True)
        (folder / "sounds" / label).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
            sound = 0.1 * draw.normal(size=1600 + 10 * number)
            soundfile.write(folder / "sounds" / label / f"{number}.wav", sound, 8000)
    rows = [f"{a:.3f},{b:.3f},{'xyz'[int(a * 3)]},{'pq'[int(b * 2)]},{a + b:.3f}" for a, b in draw.random((48, 2))]
    (folder / "table.csv").write_text("\n".join(["first,second,third,label,amount", *rows]) + "\n")
    words = ["good", "bad", "film", "plot", "not", "very", "slow", "fine"]
    rows = [f"{' '.join(draw.choice(words, 6))} {number},{'up' if number % 2 else 'down'}" for number in range(48)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    np.savez(
        folder / "sequences.npz", sequences=draw.normal(size=(48, 6, 2)).astype(np.float32), labels=np.arange(48) % 3
    )
    table, texts = f"file={folder / 'table.csv'}", f"file={folder / 'texts.csv'}"
    photos, sounds = f"root={folder / 'images'}", f"root={folder / 'sounds'}"
    sequences = f"file={folder / 'sequences.npz'}"
    numbers = ["label=amount", "label_kind=numbers"]
    glyphs = ["data=glyphs_digits", "data.source.samples=40", "data.labels_per_class=3"]
    return {
        "image": [
            glyphs,
            [*glyphs, "data.image_size=28"],
            [*of("image_folder", photos), "data.num_workers=0", "data.image_size=32"],
            [*of("image_folder", photos), *source("image_folder", photos), "data.num_workers=0", "data.image_size=32"],
            ["data=mnist"],  # is not there
        ],
        "table": [
            of("table_file", table, "label=label", data="table"),
            [*of("table_file", table, "label=label", data="table"), *source("table_file", table, "label=third")],
            [*of("table_file", table, *numbers, data="table"), "task=regression"],
            ["data=table", *source("breast_cancer_mean_error"), "data/domain@data.target=breast_cancer"],
        ],
        "text": [
            of("text_file", texts, data="text"),
            [*of("text_file", texts, data="text"), *source("text_file", texts)],
        ],
        "audio": [
            of("audio_folder", sounds, data="speech"),
            [*of("audio_folder", sounds, data="speech"), *source("audio_folder", sounds)],
        ],
        "sequence": [
            of("sequence_arrays", sequences, data="sequences"),
            [*of("sequence_arrays", sequences, data="sequences"), *source("sequence_arrays", sequences)],
            ["data=sequences", *source("digit_rows"), "data.labels_per_class=3"],
        ],
    }


def of(domain: str, *values: str, data: str = "image_folder") -> list[str]:
    """Overrides for a target."""
    return [f"data={data}", f"data/domain@data.target={domain}", *(f"data.target.{value}" for value in values)]


def source(domain: str, *values: str) -> list[str]:
    """Overrides for a source."""
    return [f"data/domain@data.source={domain}", *(f"data.source.{value}" for value in values)]


def composition(draw: random.Random, data: dict[str, list[list[str]]], keys: Sequence[str]) -> list[str]:
    """The overrides of one case."""
    modality = draw.choices(list(data), [6, 3, 2, 2, 2])[0]
    words = [*draw.choice(data[modality]), *STEPS]
    has_source = any("data.source" in word or "glyphs" in word for word in words)
    backbone = draw.choice(BACKBONES[modality if draw.random() < 0.95 else draw.choice(list(BACKBONES))])
    words += [f"backbone={backbone}", *NAMES.get(backbone, [])]
    words += [f"trainer={draw.choice(TRAINERS)}", f"logger={draw.choice(LOGGERS)}"]
    if has_source and draw.random() < 0.9:
        words.append("backbone.weights=source")
    if not has_source and draw.random() < 0.7:
        words.append("strategy=scratch")
    elif draw.random() < 0.9:
        words.append(f"strategy={draw.choice(options_of('strategy'))}")
    for group, chance in GROUPS.items():
        if draw.random() < chance:
            words.append(f"{group}={draw.choice(options_of(group))}")
    if "strategy=peft" in words:
        words.append(f"strategy.tuner={draw.choice(['lokr', 'loha', 'oft', 'vera', 'nothing'])}")
    if terms := draw.sample(options_of("term"), draw.choice([0, 0, 0, 1, 1, 2])):
        words.append(f"term=[{','.join(terms)}]")
    for key in draw.sample(sorted(OPTIONS), draw.choice([0, 0, 1, 1, 2, 3])):
        words.append(f"{key}={draw.choice(OPTIONS[key])}")
    if draw.random() < 0.2:
        words.append(f"{draw.choice(keys)}={draw.choice(VALUES)}")
    return words


def keys_of_conf() -> list[str]:
    """Keys that a case may give any value, of the option that conf/train.yaml names in each group."""
    defaults = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    found = []
    for one in defaults:
        if not isinstance(one, dict):
            continue
        ((group, option),) = one.items()
        if isinstance(option, str) and group not in ("paths", "hydra", "logger"):
            content = yaml.safe_load((CONF / group / f"{option}.yaml").read_text()) or {}
            found += [f"{group}.{key}" for key in content if key not in ("defaults", "_target_", "epochs", "samples")]
    return [key for key in found if key not in WAITS]


class Case:
    """One composition, and how far it came."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.words, self.folder = words, folder
        self.reached = "the config check"

    def outcome(self) -> tuple[str, str]:
        """A word for how it ended, and its message where that is a failure."""
        try:
            with reached_by(self), quiet(self.folder), alarm():
                graft.train(*self.words, f"hydra.run.dir={self.folder / 'run'}")
            return "trained", ""
        except Diverged:
            return "trained", ""
        except (GraftError, HydraException, OmegaConfBaseException) as error:
            if self.reached == "training":
                return "FAILED", f"refused after training began: {error}"
            return f"refused by {self.reached}", ""
        except (Hung, Exception, SystemExit):
            return "FAILED", traceback.format_exc()


@contextlib.contextmanager
def reached_by(case: Case) -> Iterator[None]:
    """Note when a case loads its data and when it trains."""
    load, learn, fit = TransferDataModule.load, pretrain.train_alone, run.fit

    def loading(self: TransferDataModule) -> None:
        case.reached = "the data"
        load(self)
        case.reached = "the assembly"

    def pretraining(*arguments: Any) -> Any:
        case.reached = "what comes after pretraining"
        return learn(*arguments)

    def training(*arguments: Any) -> None:
        case.reached = "training"
        fit(*arguments)

    TransferDataModule.load, pretrain.train_alone, run.fit = loading, pretraining, training
    try:
        yield
    finally:
        TransferDataModule.load, pretrain.train_alone, run.fit = load, learn, fit


@contextlib.contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """Print into a file."""
    with (folder / "printed.txt").open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """End what does not end: by an exception, and where that does not come through, the process."""
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT_S)
    faulthandler.dump_traceback_later(3 * LIMIT_S, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the cases of a seed; exit code 1 where one fails."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="default: a new one")
    parser.add_argument("--only", type=int, help="the number of one case, whose message is printed")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.cases} cases", flush=True)
    quieten_lightning()
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    plots.write_all = lambda *_: None  # pictures are half of the time of such a run
    draw, counts, slowest, started = random.Random(options.seed), Counter(), (0.0, 0), time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        os.environ |= {"GRAFT_CACHE": str(root / "cache"), "GRAFT_DATA": str(root / "nothing")}
        data, keys = make_data(root), keys_of_conf()
        for number in range(options.cases):
            words = composition(draw, data, keys)
            if options.only not in (None, number):
                continue
            folder = root / "case"
            folder.mkdir()
            before = time.perf_counter()
            word, message = Case(words, folder).outcome()
            slowest = max(slowest, (time.perf_counter() - before, number))
            counts[word] += 1
            if message or options.only is not None:
                print(f"{word} case {number}\n{' '.join(words)}\n{message}", flush=True)
            shutil.rmtree(folder)
    for word, count in counts.most_common():
        print(f"{count:5} {word}")
    print(f"seed {options.seed}: {counts['FAILED']} failed, {time.perf_counter() - started:.0f} s, ", end="")
    print(f"the slowest {slowest[0]:.0f} s (case {slowest[1]})")
    return int(counts["FAILED"] > 0)


if __name__ == "__main__":
    sys.exit(main())
