"""Reference runs that a change of structure must reproduce bit by bit, on one machine's CPU.

    python -m tests.references record logs/references.json     # before
    python -m tests.references compare logs/references.json    # after; exit code 1 where a bit differs

Weights and metrics of small runs: one a modality, and strategies, terms and joint training. Another machine, another
torch or another number of threads sums in another order, so the file is never committed.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PROJECT = Path(__file__).parents[1]
COMMON = ["training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0", "baselines=none"]
LENET = [
    *("experiment=resnet_ft", "backbone=lenet", "data.source.samples=400", "pretrain.epochs=1"),
    *("training.epochs=4", "optimizer.lr=3e-3"),
]
EXPERIMENTS: dict[str, list[str]] = {
    "image": [*LENET, "strategy=full", "data.augment=light"],
    "image_folder": [
        *("experiment=image_folder", "data.target.root={photos}", "data.image_size=64", "training.epochs=2"),
        "data.batch_size=8",
    ],
    "text": [
        *("experiment=bert_sentiment", "data.labels_per_class=8", "data.batch_size=8", "training.epochs=1"),
        *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "backbone.max_length=32"),
        "data.eval_batch_size=64",
    ],
    "speech": [
        *("experiment=speech_voices", "data.source.samples=60", "data.target.samples=100", "pretrain.epochs=1"),
        *("training.epochs=2", "training.validate_every_epochs=1", "data.labels_per_class=2"),
    ],
    "table": ["experiment=tabular_transfer", "pretrain.epochs=2", "training.epochs=3"],
    "table_regression": ["experiment=tabular_regression", "backbone=ft_transformer", "training.epochs=2"],
    "sequence": ["experiment=sequence_digits", "training.epochs=2"],
    "lp_ft": [*LENET, "strategy=lp_ft", "averaging=ema"],
    "lora": [
        *("experiment=resnet_ft", "strategy=lora", "data.source.samples=300", "pretrain.epochs=1"),
        *("training.epochs=2", "data.image_size=16"),
    ],
    "terms": [*LENET, "strategy=gradual", "term=[l2sp,bss,feature_distillation,lwf]", "training.mixup_alpha=0.2"],
    "joint": [
        *("experiment=resnet_joint", "backbone=cnn", "data.source.samples=400", "training.epochs=3"),
        *("bn=domain_specific", "head.sharing=separate", "objective.alpha_end=0.2"),
    ],
    "frozen_views": [*LENET, "strategy=frozen", "data.augment=light", "cache.augmented_views=2"],
}


def run(name: str, overrides: list[str], folder: Path) -> dict[str, str]:
    """Every weight's hash and every metric's exact value of a run in a process of its own."""
    run_dir = folder / name
    values = [value.replace("{photos}", str(folder / "photos")) for value in overrides]
    command = [sys.executable, "train.py", *values, *COMMON, f"hydra.run.dir={run_dir}"]
    environment = {**os.environ, "GRAFT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"{name}: exit code {done.returncode}\n{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    found = {}
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    for key, value in sorted(checkpoint["state_dict"].items()):
        found[f"weights {key}"] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()[:16]
    metrics = json.loads((run_dir / "results.json").read_text())["metrics"]
    return found | {f"metric {key}": float(value).hex() for key, value in sorted(metrics.items())}


def write_photos(root: Path) -> None:
    """Two classes of 24 noisy photos of a colour each."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 156, (72, 80, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * label] += 90
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def main() -> int:
    """Record references, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", choices=sorted(EXPERIMENTS))
    arguments = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "photos")
        found = {}
        for name in arguments.only or EXPERIMENTS:
            found[name] = run(name, EXPERIMENTS[name], folder)
            if arguments.action == "record":
                print(f"{name}: {len(found[name])} values")
                continue
            expected = json.loads(arguments.file.read_text())[name]
            wrong = [key for key in {**expected, **found[name]} if expected.get(key) != found[name].get(key)]
            print(f"{name}: {len(expected) - len(wrong)} of {len(expected)} equal {wrong[:3] or ''}", flush=True)
            different += bool(wrong)
    if arguments.action == "record":
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        arguments.file.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
