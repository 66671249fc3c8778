"""Nothing runs that is not Graft's: hostile targets and files, one list for every way in, and what may be named."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from train_app import PROJECT

from graft import config, registry
from graft.build import build
from graft.cli.hydra_versions import VERSION_BASE
from graft.errors import GraftError
from graft.runs import untrusted

CONF = PROJECT / "conf"
TOUCH = "touch {file}"
PYTHON = "open('{file}', 'w')"
# (target, its keys): each that can touches {file}, empties {folder} or loads {pickle}, whose loading touches {file}.
HOSTILE = [
    # programs
    ("os.system", {"command": TOUCH}),
    ("os.popen", {"cmd": TOUCH}),
    ("os.posix_spawn", {"path": "/bin/touch", "argv": ["touch", "{file}"], "env": {}}),
    ("os.execv", {"path": "/bin/touch", "argv": ["touch", "{file}"]}),
    ("os.spawnlp", {"mode": 0, "file": "touch"}),
    ("posix.system", {"command": TOUCH}),
    ("nt.system", {"command": TOUCH}),
    ("pty.spawn", {"argv": ["touch", "{file}"]}),
    ("subprocess.run", {"args": ["touch", "{file}"]}),
    ("subprocess.Popen", {"args": ["touch", "{file}"]}),
    ("subprocess.call", {"args": ["touch", "{file}"]}),
    ("subprocess.check_call", {"args": ["touch", "{file}"]}),
    ("subprocess.check_output", {"args": ["touch", "{file}"]}),
    ("subprocess.getoutput", {"cmd": TOUCH}),
    ("asyncio.create_subprocess_shell", {"cmd": TOUCH}),
    ("multiprocessing.Process", {"target": "os.system"}),
    ("distutils.spawn.spawn", {"cmd": ["touch", "{file}"]}),
    ("timeit.timeit", {"stmt": PYTHON, "number": 1}),
    ("cProfile.run", {"statement": PYTHON}),
    ("pdb.run", {"statement": PYTHON}),
    ("trace.Trace.run", {"cmd": PYTHON}),
    ("code.interact", {"banner": ""}),
    ("code.InteractiveInterpreter", {}),
    ("webbrowser.open", {"url": "file://{file}"}),
    ("ctypes.CDLL", {"name": "{file}"}),
    ("antigravity.webbrowser.open", {"url": "x"}),
    # Python code
    ("builtins.eval", {"source": PYTHON}),
    ("builtins.exec", {"source": PYTHON}),
    ("builtins.compile", {"source": PYTHON, "filename": "x", "mode": "eval"}),
    ("builtins.open", {"file": "{file}", "mode": "w"}),
    ("builtins.__import__", {"name": "hostile_module"}),
    ("builtins.getattr", {"_args_": ["os", "system"]}),
    ("__builtins__.eval", {"source": PYTHON}),
    ("importlib.import_module", {"name": "hostile_module"}),
    ("importlib.machinery.SourceFileLoader", {"fullname": "x", "path": "{module}"}),
    ("runpy.run_path", {"path_name": "{module}"}),
    ("runpy.run_module", {"mod_name": "hostile_module"}),
    ("pydoc.locate", {"path": "hostile_module"}),
    ("pkgutil.resolve_name", {"name": "os.system"}),
    ("hostile_module.run", {}),
    ("hostile_module.Part", {}),
    ("zipimport.zipimporter", {"path": "{file}"}),
    # pickles
    ("torch.load", {"f": "{pickle}", "weights_only": False}),
    ("torch.serialization.load", {"f": "{pickle}", "weights_only": False}),
    ("torch.hub.load", {"repo_or_dir": "{folder}", "model": "run", "source": "local"}),
    ("torch.hub.load_state_dict_from_url", {"url": "file://{pickle}", "weights_only": False}),
    ("torch.jit.load", {"f": "{pickle}"}),
    ("torch.package.PackageImporter", {"file_or_buffer": "{pickle}"}),
    ("torch.save", {"obj": 1, "f": "{file}"}),
    ("torch.utils.cpp_extension.load", {"name": "x", "sources": ["{file}"]}),
    ("torch.utils.cpp_extension.load_inline", {"name": "x", "cpp_sources": ""}),
    ("torch.utils.cpp_extension.subprocess.run", {"args": ["touch", "{file}"]}),
    ("torch.nn.Module", {}),
    ("torch.nn.Linear", {"in_features": 2, "out_features": 2}),
    ("torch.ops.load_library", {"path": "{file}"}),
    ("torch.classes.load_library", {"path": "{file}"}),
    ("torch.multiprocessing.spawn", {"fn": "os.system"}),
    ("numpy.load", {"file": "{npy}", "allow_pickle": True}),
    ("numpy.lib.npyio.load", {"file": "{npy}", "allow_pickle": True}),
    ("numpy.fromfile", {"file": "{npy}"}),
    ("numpy.f2py.compile", {"source": ""}),
    ("numpy.savetxt", {"fname": "{file}", "X": [1]}),
    ("pickle.load", {"file": "{pickle}"}),
    ("pickle.loads", {"data": "{pickle}"}),
    ("_pickle.loads", {"data": "{pickle}"}),
    ("marshal.loads", {"bytes": "x"}),
    ("shelve.open", {"filename": "{file}"}),
    ("dbm.open", {"file": "{file}", "flag": "c"}),
    ("joblib.load", {"filename": "{pickle}"}),
    ("dill.load", {"file": "{pickle}"}),
    ("cloudpickle.loads", {"data": "{pickle}"}),
    ("pandas.read_pickle", {"filepath_or_buffer": "{pickle}"}),
    ("pandas.eval", {"expr": PYTHON}),
    ("yaml.unsafe_load", {"stream": "!!python/object/apply:os.system ['touch {file}']"}),
    ("logging.config.fileConfig", {"fname": "{file}"}),
    ("logging.config.dictConfig", {"config": {"version": 1}}),
    # files
    ("shutil.rmtree", {"path": "{folder}"}),
    ("shutil.copy", {"src": "{module}", "dst": "{file}"}),
    ("os.remove", {"path": "{module}"}),
    ("os.mkdir", {"path": "{file}"}),
    ("pathlib.Path.touch", {"self": "{file}"}),
    ("pathlib.Path", {}),
    ("tempfile.mkdtemp", {"dir": "{folder}"}),
    ("io.open", {"file": "{file}", "mode": "w"}),
    ("urllib.request.urlretrieve", {"url": "file://{module}", "filename": "{file}"}),
    # aliases in allowed places
    ("logging.os.system", {"command": TOUCH}),
    ("graft.cli.job.shutil.rmtree", {"path": "{folder}"}),
    ("graft.cli.job.os.system", {"command": TOUCH}),
    ("graft.cache.disk.os.getcwd", {}),
    ("graft.runs.record.subprocess.run", {"args": ["touch", "{file}"]}),
    ("graft.data.sources.synthetic_voices.subprocess.run", {"args": ["touch", "{file}"]}),
    ("graft.data.domain.Path.touch", {"self": "{file}"}),
    ("graft.run.torch.load", {"f": "{pickle}", "weights_only": False}),
    ("graft.run.pickle.loads", {"data": "x"}),
    ("graft.heads.torch.load", {"f": "{pickle}", "weights_only": False}),
    ("graft.heads.linear.LinearHead.__init__.__globals__.get", {"key": "torch"}),
    ("graft.heads.linear.LinearHead.__class__", {}),
    ("graft.heads.linear.LinearHead.__subclasses__", {}),
    ("graft.heads.linear.LinearHead.load_state_dict", {}),
    ("graft.tasks.multiclass.Multiclass.__reduce__", {}),
    ("graft.heads.nn.Linear", {"in_features": 2, "out_features": 2}),
    ("torch.optim.optimizer.torch.get_num_threads", {}),
    ("torch.optim.optimizer.torch.load", {"f": "{pickle}", "weights_only": False}),
    ("torch.optim.lr_scheduler.types.FunctionType", {}),
    ("torch.optim.swa_utils.AveragedModel", {}),
    ("torch.optim.Optimizer", {"params": [], "defaults": {}}),
    ("torch.optim.SGD.load_state_dict", {}),
    ("torch.optim.SGD.__init__", {}),
    ("torch.optim._multi_tensor.partialmethod", {}),
    ("pytorch_lightning.callbacks.os.system", {"command": TOUCH}),
    ("pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree", {"path": "{folder}"}),
    ("pytorch_lightning.callbacks.ModelCheckpoint", {"dirpath": "{folder}"}),
    ("pytorch_lightning.callbacks.LambdaCallback", {}),
    ("pytorch_lightning.loggers.csv_logs.os.system", {"command": TOUCH}),
    ("pytorch_lightning.Trainer", {}),
    ("lightning.pytorch.callbacks.os.system", {"command": TOUCH}),
    # Graft's own that are no parts
    ("graft.cli.job.remove_outputs", {"folder": "{folder}"}),
    ("graft.cli.job.fail", {}),
    ("graft.cli.launch.launch", {}),
    ("graft.run.train", {"cfg": {}}),
    ("graft.build.build", {"settings": {"_target_": "os.system", "command": TOUCH}}),
    ("graft.registry.trust", {"packages": ["mypkg"]}),
    ("graft.registry.resolve", {"target": "os.system"}),
    ("graft.weights.loading.read_tensors", {"file": "{pickle}"}),
    ("graft.data.shared.share_domains", {}),
    ("graft.data.readers.espeak.speak_all", {"request": {"library": "{file}"}}),
    ("graft.cli.sweep_callback.SweepCallback", {}),
    ("graft.cache.rows.RowWriter", {"folder": "{folder}"}),
    # Hydra's and its words
    ("hydra.utils.instantiate", {"config": {"_target_": "os.system", "command": TOUCH}}),
    ("hydra.utils.call", {"config": {"_target_": "os.system", "command": TOUCH}}),
    ("hydra.utils.get_method", {"path": "os.system"}),
    ("hydra.utils.get_object", {"path": "os.system"}),
    ("hydra._internal.utils._locate", {"path": "os.system"}),
    ("hydra._internal.instantiate._instantiate2.instantiate", {"config": {"_target_": "os.system", "command": TOUCH}}),
    ("omegaconf.OmegaConf.register_new_resolver", {"name": "x", "resolver": "os.system"}),
    ("functools.partial", {"_args_": ["os.system", TOUCH]}),
    ("operator.attrgetter", {"_args_": ["os.system"]}),
    ("graft.heads.linear.LinearHead", {"feature_size": 2, "num_outputs": 2, "_partial_": True}),
    ("graft.heads.linear.LinearHead", {"feature_size": 2, "num_outputs": 2, "_recursive_": False}),
    ("graft.heads.linear.LinearHead", {"feature_size": 2, "num_outputs": 2, "_convert_": "all"}),
    ("graft.heads.linear.LinearHead", {"_args_": [2, 2]}),
    ("graft.heads.linear.LinearHead", {"feature_size": {"_target_": "os.system", "command": TOUCH}, "num_outputs": 2}),
    (
        "graft.heads.linear.LinearHead",
        {"feature_size": [[{"a": {"_target_": "os.system", "command": TOUCH}}]], "num_outputs": 2},
    ),
    # what is no name, or looks like one
    ("", {}),
    ("eval", {"source": PYTHON}),
    ("exec", {"source": PYTHON}),
    ("LinearHead", {}),
    (".graft.heads.LinearHead", {}),
    ("graft..heads.LinearHead", {}),
    ("graft.heads.linear.LinearHead.", {}),
    (" graft.heads.linear.LinearHead", {}),
    ("graft.heads.linear.LinearHead\n", {}),
    ("graft.heads:LinearHead", {}),
    ("graft/heads.LinearHead", {}),
    ("gr\u0430ft.heads.LinearHead", {}),  # a Cyrillic a
    ("graft.heads.\uff2cinearHead", {}),  # a full-width L, which Python's own identifiers turn into L
    ("os\u200b.system", {"command": TOUCH}),
    ("\uff4fs.system", {"command": TOUCH}),
    ("Torch.optim.SGD", {}),
    ("__import__('os').system", {"command": TOUCH}),
    ("os.system('touch {file}')", {}),
    ("${oc.env:HOME}", {}),
    ("__main__.run", {}),
    ("sys.modules", {}),
    ("tests.test_registry.Payload", {}),
    ("test_registry.Payload", {}),
    (None, {}),
    (7, {}),
    (True, {}),
    (["os", "system"], {"command": TOUCH}),
    ({"_target_": "os.system", "command": TOUCH}, {}),
    (print, {}),
]
NAMED = [(t, a) for t, a in HOSTILE if isinstance(t, str) and t != "graft.heads.linear.LinearHead" and "${" not in t]
# Where in a config a part, or free keys, may stand.
PLACES = (
    *("optimizer", "pretrain.optimizer", "scheduler", "pretrain.scheduler", "objective", "task", "source_task", "head"),
    *("backbone", "strategy", "rates", "selection", "averaging", "compress", "data"),
    *("data.target", "data.source", "term.l2sp"),
    *("data.target.options", "optimizer.options", "callbacks.mine", "logger.mine", "trainer.plugins", "strategy.extra"),
    *("data.target.classes.0", "tags.0", "paths.more.0.deep"),
)


class Payload:
    """Unpickling it touches a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.fixture(autouse=True)
def nothing_is_trusted():
    registry.trust([])


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Fills {names} in; in the end nothing was touched, removed or imported."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.yaml").write_text("precious: 1\n")
    touched = tmp_path / "touched"
    (tmp_path / "hostile_module.py").write_text(f"open({str(touched)!r}, 'w')\nrun = Part = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Payload(str(touched))))
    np.save(tmp_path / "x.npy", np.array([Payload(str(touched))], dtype=object), allow_pickle=True)
    names = {
        "{file}": touched,
        "{folder}": tmp_path / "folder",
        "{pickle}": tmp_path / "x.pkl",
        "{npy}": tmp_path / "x.npy",
        "{module}": tmp_path / "hostile_module.py",
    }

    def fill(value):
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [fill(one) for one in value]
        for name, path in names.items() if isinstance(value, str) else ():
            value = value.replace(name, str(path))
        return value

    yield fill
    assert not touched.exists()
    assert (tmp_path / "folder" / "config.yaml").read_text() == "precious: 1\n"
    assert (tmp_path / "hostile_module.py").exists()
    assert "hostile_module" not in sys.modules


def test_the_list_is_long_and_the_trap_works(tmp_path):
    assert len({(str(target), str(arguments)) for target, arguments in HOSTILE}) == len(HOSTILE) >= 100
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Payload(str(tmp_path / "touched"))))
    pickle.loads((tmp_path / "x.pkl").read_bytes()).close()
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(("target", "arguments"), HOSTILE, ids=lambda value: ascii(value)[:60])
def test_what_is_hostile_is_not_built(trap, target, arguments):
    settings = {"_target_": target, **trap(arguments)}
    with pytest.raises(GraftError, match=r"_target_|_args_"):
        build(settings)
    with pytest.raises(GraftError):  # and not before the rest, as an argument of what may be built
        build({"_target_": "graft.data.module.TransferDataModule", "target": settings, "source": None})


def with_part(settings, place, part):
    """A copy of the settings with a part at a dotted place; a number there stands for a list."""
    name, _, rest = place.partition(".")
    settings = settings if isinstance(settings, dict) else {}
    inside = with_part(settings.get(name), rest, part) if rest else part
    return [inside] if name.isdigit() else {**settings, name: inside}


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return config.plain(compose("train", overrides=["experiment=resnet_ft", "paths.run_dir=run", "term=[l2sp]"]))


def test_the_check_finds_it_at_every_place(composed):
    assert list(registry.problems(composed, [])) == []
    for place in PLACES:
        for target, arguments in HOSTILE:
            found = list(registry.problems(with_part({}, place, {"_target_": target, **arguments}), []))
            assert found, (place, target)
            assert all(line.startswith(f"`{place}.") for line in found), (place, found)
        assert list(registry.problems(with_part(composed, place, {"_target_": "os.system"}), []))


@pytest.mark.parametrize(("target", "arguments"), NAMED, ids=lambda value: ascii(value)[:60])
def test_another_runs_config_is_refused_by_file_and_key(tmp_path, trap, target, arguments):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"objective": {"_target_": target, **trap(arguments)}, "allow": ["os", "mypkg"]}))
    with pytest.raises(GraftError, match=r"`objective\._target_=") as refused:
        untrusted.read_config(path, allow=["mypkg"])
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: !!python/object/apply:os.system ['touch {file}']", "could not determine a constructor"),
        ("a: !!python/object/new:subprocess.Popen [['touch', '{file}']]", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!python/module:hostile_module", "could not determine a constructor"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases"),
        ("a: &a\n  b: *a", "aliases"),
        ("a: &a {_target_: os.system}\nb:\n  <<: *a", "aliases"),
        ("a: " + "[" * 5000, "recursion"),
        ("a: [1, 2", "while parsing"),
        ("a: 2026-99-99", "month"),
        ("\0", "special characters"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("- a", "no config"),
        ("", "no config"),
        ("a: ${oc.env:HOME}", "`a=${oc.env:HOME}`: a reference"),
        ("a: {b: [1, 'x ${now:%Y} y']}", "`a.b.1=x ${now:%Y} y`: a reference"),
        ("a: '\\${escaped}'", "a reference"),
        ("'${oc.env:HOME}': 1", "a reference"),
        ("a: {_target_: '${oc.env:EVIL}'}", "a._target_"),
    ],
)
def test_hostile_and_torn_files_are_one_message(tmp_path, trap, content, said):
    path = tmp_path / "config.yaml"
    path.write_text(trap(content))
    with pytest.raises(GraftError) as refused:
        untrusted.read_config(path, allow=[])
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_bytes_that_are_no_text_are_one_message(tmp_path):
    (tmp_path / "overrides.yaml").write_bytes(b"- \xff\xfe")
    with pytest.raises(GraftError, match=r"overrides\.yaml cannot be read"):
        untrusted.read_overrides(tmp_path / "overrides.yaml")
    (tmp_path / "overrides.yaml").write_text("- {a: 1}")
    with pytest.raises(GraftError, match=r"overrides\.yaml is no list of overrides"):
        untrusted.read_overrides(tmp_path / "overrides.yaml")


VALUES = [
    1e-05,
    1.0,
    3,
    True,
    None,
    "1e-3",
    "1",
    "true",
    "no",
    "null",
    "2026-01-01",
    "1:30",
    "",
    "é",
    "a: b",
    [1e20],
    {},
]


def test_what_graft_writes_is_read_back_the_same(tmp_path):
    from omegaconf import OmegaConf

    same = [1, 2]
    content = {"values": VALUES, "nested": {"a": same, "b": same}}
    OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
    assert untrusted.read_config(tmp_path / "config.yaml", allow=[]) == content


# What may be named


def targets_of_conf():
    """But those of conf/hydra, which Hydra builds itself."""
    files = [path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] != "hydra"]
    return sorted({value for path in files for _, value in registry.target_keys(yaml.safe_load(path.read_text()))})


@pytest.mark.parametrize("target", targets_of_conf())
def test_every_target_in_conf_is_allowed(target):
    assert registry.resolve(target).__name__ == target.rpartition(".")[2]


def test_all_of_torchs_optimizers_are_allowed():
    optimizers = {
        name
        for name, one in vars(torch.optim).items()
        if isinstance(one, type) and issubclass(one, torch.optim.Optimizer) and one is not torch.optim.Optimizer
    }
    assert optimizers <= set(registry.OPTIMIZERS)
    assert all(issubclass(registry.resolve(f"torch.optim.{name}"), torch.optim.Optimizer) for name in optimizers)


@pytest.mark.parametrize(
    "name", [*(f"callbacks.{n}" for n in registry.CALLBACKS), *(f"loggers.{n}" for n in registry.LOGGERS)]
)
def test_lightnings_listed_parts_are_allowed(name):
    spellings = ["pytorch_lightning", "lightning.pytorch"]
    assert all(registry.resolve(f"{library}.{name}").__name__ == name.partition(".")[2] for library in spellings)


@pytest.mark.parametrize(
    ("package", "said"),
    [
        *(
            (name, "never allowed")
            for name in ("os", "sys", "subprocess", "builtins", "torch", "hydra", "graft", "yaml")
        ),
        *((name, "never allowed") for name in ("pickle", "importlib", "numpy", "__main__", "pytorch_lightning")),
        *((name, "name of a package") for name in ("a.b", "", "1a", "a b", "\u043emypkg", None, 3)),
    ],
)
def test_what_is_no_package_of_parts_cannot_be_allowed(package, said):
    with pytest.raises(GraftError, match=said):
        registry.trust([package])
    assert list(registry.problems({"a": {"_target_": f"{package}.b.C"}}, [package] if package != "" else []))


PART = """
import os
import subprocess
from pathlib import Path
from subprocess import Popen
from mypkg.deep import Deep
import torch

class Mine(torch.optim.SGD):
    def __init__(self, params, lr, note):
        super().__init__(params, lr)
        Path(note).write_text("built")

system = os.system
"""


@pytest.fixture
def package(tmp_path, monkeypatch, own_package):
    """A user's package `mypkg` with an optimizer, and a folder of configs that names it."""
    (tmp_path / "code" / "mypkg").mkdir(parents=True)
    (tmp_path / "code" / "mypkg" / "__init__.py").write_text(PART)
    (tmp_path / "code" / "mypkg" / "deep.py").write_text("class Deep:\n    pass\n")
    (tmp_path / "my conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "my conf" / "optimizer" / "mine.yaml").write_text(
        "_target_: mypkg.Mine\nlr: 0.01\nweight_decay: 0.0\ndecay_norms_and_biases: false\n"
        f"options: {{note: '{tmp_path / 'note'}'}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    return tmp_path / "my conf"


def test_of_an_allowed_package_its_own_classes_are_built_and_nothing_else(package):
    with pytest.raises(GraftError, match=r"Where the package mypkg is yours: allow=\[mypkg\]"):
        build({"_target_": "mypkg.deep.Deep"})
    assert "mypkg" not in sys.modules
    registry.trust(["mypkg"])
    assert type(build({"_target_": "mypkg.deep.Deep"})).__name__ == "Deep"
    assert type(build({"_target_": "mypkg.Deep"})).__name__ == "Deep"
    for alias in ("Popen", "system", "os.system", "subprocess.run", "deep", "Mine.step", "missing", "__class__"):
        with pytest.raises(GraftError, match=f"mypkg.{alias}"):
            registry.resolve(f"mypkg.{alias}")
    with pytest.raises(GraftError, match=r"mypkg\.deep\.Deep: got an unexpected keyword argument 'x'"):
        build({"_target_": "mypkg.deep.Deep", "x": 1})


def test_an_installed_package_that_says_it_has_parts_is_allowed(package, tmp_path, monkeypatch):
    info = tmp_path / "code" / "mypkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graft.parts]\nmypkg = mypkg.deep\nevil = os\n")
    registry.installed_packages.cache_clear()
    try:
        assert registry.installed_packages() == {"mypkg"}
        assert registry.resolve("mypkg.deep.Deep")
        with pytest.raises(GraftError):
            registry.resolve("os.system")
    finally:
        registry.installed_packages.cache_clear()


def test_a_users_package_trains_where_it_is_allowed(package, tmp_path):
    from graft.cli.job import execute
    from graft.config import plain

    tiny = ["experiment=resnet_ft", "backbone=lenet", "data.image_size=16", "data.source=null", "strategy=scratch"]
    tiny += ["backbone.weights=null", "debug=fast", "trainer=cpu", "logger=csv", "data.num_workers=0"]
    where = [f"++paths.run_dir={tmp_path / 'run'}", f"paths.root={tmp_path}", f"++paths.cache_dir={tmp_path / 'cache'}"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        search = f"hydra.searchpath=['file://{package}']"
        cfg = compose("train", overrides=[*tiny, *where, search, "optimizer=mine", "allow=[mypkg]"])
    (tmp_path / "run").mkdir()
    assert execute(plain(cfg))["status"] == "done"
    assert (tmp_path / "note").read_text() == "built"
    cfg.allow = []
    with pytest.raises(GraftError, match=r"allow=\[mypkg\]"):
        execute(plain(cfg))


def test_the_command_line_says_what_is_refused_and_how_to_allow_it(app, package, tmp_path):
    command = ["--config-dir", str(package), "experiment=resnet_ft", "optimizer=mine"]
    outcome = app(*command)
    assert (outcome.code, app.configs) == (2, [])
    assert outcome.err.count("allow=[mypkg]") == 1
    assert "`optimizer._target_=mypkg.Mine`: is none of Graft's parts" in outcome.err
    assert app(*command, "allow=[mypkg]").code == 0
    assert app.configs[0].allow == ["mypkg"]
    assert "mypkg" not in sys.modules  # nothing is imported for a check

    folder = f"hydra.run.dir={app.folders()[0]}"
    assert "Already done" in app(*command, "allow=[mypkg,other]", folder).out  # no other experiment
    for more in ([], ["resume=true"]):
        outcome = app(*command, folder, *more)
        assert outcome.code == 2
        assert "allow=[mypkg]" in outcome.err


def test_all_mistakes_are_told_with_it_at_once(app):
    outcome = app(
        *("experiment=resnet_ft", "optimizer._target_=torch.optim.Adm", "task._target_=3", "seed=abc", "allow=[os]"),
        *(
            "+data.target.options={_target_: os.system}",
            "notes='\\${oc.env:HOME}'",
            "rates._target_=graft.rates.uniform",
        ),
    )
    assert outcome.code == 2
    assert outcome.err.startswith("9 mistakes")
    for said in (
        "`allow=[os]`: never allowed",
        "`seed=abc`: must be",
        "did you mean torch.optim.Adam?",
        "`task._target_=3`: must be the dotted name",
        "`rates._target_=graft.rates.uniform`: is none",
        "`data.target.options._target_=os.system`: is none",
        "`notes=${oc.env:HOME}`: a value cannot hold",
    ):
        assert said in outcome.err


@pytest.mark.slow
def test_a_sweep_of_somebody_else_cannot_be_made_a_soup(app, tmp_path, trap):
    assert app("-m", "experiment=resnet_ft", "seed=0,1").code == 0
    (sweep,) = app.folders("sweeps")
    for path in sweep.glob("*/config.yaml"):
        settings = yaml.safe_load(path.read_text())
        arguments = trap({"f": "{pickle}", "weights_only": False})
        settings |= {"objective": {"_target_": "torch.load", **arguments}, "allow": ["torch", "os"]}
        path.write_text(yaml.safe_dump(settings))
    for allowed in ([], ["allow=[mypkg]"]):
        outcome = app(f"soup={sweep}", *allowed)
        assert (outcome.code, app.configs) == (2, [])
        assert "config.yaml is not used:\n  - `objective._target_=torch.load`" in outcome.err
    assert not Path(tmp_path, "touched").exists()
