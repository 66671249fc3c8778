"""Write a run's network in another format, such as ONNX: `graft export run=<folder> format=onnx`."""

import importlib.util
import signal
import sys
from collections.abc import Sequence
from typing import Any, cast

from graft import signals
from graft.cli.words import names_in, pairs
from graft.errors import GraftError
from graft.files import user_path

USAGE = """graft export run=<folder> format=<format> [to=<path>] [int8=static|dynamic] [allow=[packages]]
  run        a run's folder, its model folder, or a sweep's folder (its best job)
  format     onnx          a file for onnxruntime and others, preprocessing and calibration in it
             torch_export  a .pt2 file that torch runs without Graft
             safetensors   the weights, and JSON beside them
             huggingface   a folder that transformers' AutoModel or timm opens, where the backbone came from there
  to         what is written; without it <name of the run>.<ending> in this folder
  int8       with format=onnx, 8-bit weights: static (convolutions; calibrated on the run's validation samples) or
             dynamic (transformers and LSTMs)
  allow      [packages] whose code the model may run: only if you trust it"""
KEYS = ("run", "format", "to", "int8", "allow")
ALLOWED = {"format": ("onnx", "torch_export", "safetensors", "huggingface"), "int8": ("static", "dynamic")}
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def main(arguments: list[str]) -> int:
    """Write the file, once it has answered as the run's network does, and say how large and how exact it is."""
    settings = settings_of(arguments)
    if settings is None:
        print(USAGE, file=sys.stderr)
        return 2
    if settings["format"] == "onnx" and (missing := [one for one in NEEDED if not importlib.util.find_spec(one)]):
        raise GraftError(f"format=onnx needs {', '.join(missing)}. Install them: pip install '.[export]'")

    from graft.export.write import export  # torch

    allow = names_in(settings.get("allow", ""))
    to = user_path(settings["to"]) if "to" in settings else None
    form, kind = cast(Any, settings["format"]), cast(Any, settings.get("int8"))
    try:
        with signals.scheduler_signals():  # which would end the process before it removed what is half written
            exported = export(user_path(settings["run"]), form, to, kind, allow)
    except KeyboardInterrupt as error:
        signum = error.signum if isinstance(error, signals.Stopped) else signal.SIGINT
        print(f"{signals.how_stopped(signum)}. Nothing was written.", file=sys.stderr)
        return signals.exit_code(signum)
    except OSError as error:
        raise GraftError(f"to={to or '.'} cannot be written: {error}.") from None
    print("\n".join(exported.lines))
    return 0


def settings_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """The keys of the command line, None where one is missing. Raises GraftError for an unknown key or value."""
    settings: dict[str, str] = {}
    for key, value in pairs("export", arguments, KEYS, USAGE):
        if key in ALLOWED and value not in ALLOWED[key]:
            raise GraftError(f"{key}={value}: must be one of {', '.join(ALLOWED[key])}.")
        settings[key] = value
    if not {"run", "format"} <= settings.keys():
        return None
    if "int8" in settings and settings["format"] != "onnx":
        raise GraftError(f"int8={settings['int8']} goes with format=onnx, not with format={settings['format']}.")
    return settings
