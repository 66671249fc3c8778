"""The Makefile's list of targets, its check of Python, and the lock."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
LOCK = (PROJECT / "requirements.lock").read_text()
TARGETS = [
    "help",
    "setup",
    "demo",
    "test",
    "test-all",
    "test-hydra14",
    "test-lowest",
    "chaos",
    "fuzz",
    "calibrate",
    "flower",
    "lint",
    "format",
    "lock",
    "docs",
    "bench",
    "bench-regression",
    "clean",
]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder, *arguments):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def clone(tmp_path):
    """What the Makefile needs, in a folder with a space, without an environment."""
    folder = tmp_path / "my projects"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


@needs_make
def test_help_is_the_default_and_has_a_line_for_every_target(clone):
    outcome = make(clone)
    assert outcome.returncode == 0
    assert [line.split()[1] for line in outcome.stdout.splitlines()] == TARGETS
    assert all(len(line.split()) > 3 for line in outcome.stdout.splitlines())


@needs_make
@pytest.mark.parametrize("target", [name for name in TARGETS if name not in ("help", "setup", "clean")])
def test_a_target_sets_up_the_environment_first_and_only_once(clone, target):
    assert "-m venv .venv" in make(clone, "-n", target).stdout
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".stamp").touch()
    assert "-m venv .venv" not in make(clone, "-n", target).stdout


@needs_make
def test_an_old_python_is_told(clone):
    old = clone / "old python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    outcome = make(clone, "setup", "PYTHON='./old python'")
    assert outcome.returncode != 0
    assert "Graft needs Python 3.10 or newer" in outcome.stdout
    assert not (clone / ".venv").exists()


def test_the_lock_names_no_host_and_no_folder():
    assert not re.search(r"https?://|file:|^-|index-url|find-links|(?:^|\s)/\w", LOCK, flags=re.MULTILINE)


def test_everything_in_the_lock_is_exact_and_hashed():
    blocks = re.split(r"^(?=\w)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r"[\w.-]+==[\w.+!]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]


def test_the_lock_holds_what_pyproject_asks_for():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = (
        project["project"]["dependencies"] + extras["dev"] + extras["sweep"] + project["dependency-groups"]["files"]
    )
    locked = set(re.findall(r"^([\w.-]+)==", LOCK, flags=re.MULTILINE))
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        assert name == "graft" or name in locked, name


def test_ci_runs_the_readmes_test_command_and_the_linter():
    commands = [line for line in (PROJECT / ".ci" / "run").read_text().splitlines() if line.startswith("make")]
    assert commands == ["make lint", "make test", "make test-hydra14", "make docs"]


def test_the_workflow_runs_what_is_there():
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == [
        "bash .ci/run",
        "make test-all",
        "make test-hydra14 TESTS=tests",
        "make bench-regression",
        "make test-lowest",
    ]
    assert {command.split()[1] for command in commands} <= {".ci/run", *TARGETS}


def test_the_citation_has_the_version_and_the_license_of_the_package():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    project = (PROJECT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
