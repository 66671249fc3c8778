"""Small pictures with coloured rectangles in the layouts of Pascal VOC and COCO."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "red": (220, 50, 40)}
SIZE = (48, 64)  # height, width


def pictures(number, seed=0, size=SIZE):
    """Pictures uint8 `(H, W, 3)`, each with its boxes as (class, (x0, y0, x1, y1))."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        image = random.integers(90, 150, (*size, 3)).astype(np.uint8)
        boxes = []
        for left in random.permutation([2, size[1] // 2 + 2])[: random.integers(1, 3)].tolist():
            name = str(random.choice(list(COLOURS)))
            width, height = random.integers(14, size[1] // 2 - 4), random.integers(14, size[0] - 6)
            top = int(random.integers(1, size[0] - height - 1))
            image[top : top + height, left : left + width] = COLOURS[name]
            boxes.append((name, (left, top, int(left + width), int(top + height))))
        yield image, boxes


def write_xml(path, boxes, size=SIZE, difficult=()):
    """An annotation of Pascal VOC."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(index in difficult)}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for index, (name, (x0, y0, x1, y1)) in enumerate(boxes)
    )
    path.write_text(
        f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{objects}</annotation>"
    )


def write_voc(root: Path, train=12, val=6, test=6, sizes=(SIZE,)):
    """A folder in VOC's layout with lists of all three splits; the pictures take turns in their sizes."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    found = [pictures(train + val + test, size=size) for size in sizes]
    for split, number in (("train", train), ("val", val), ("test", test)):
        names = [f"{split}_{index}" for index in range(number)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names):
            image, boxes = next(found[index % len(sizes)])
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.png")
            write_xml(root / "Annotations" / f"{name}.xml", boxes, image.shape[:2])
    return root


def write_coco(folder: Path, number=20, seed=1):
    """A JSON file of COCO beside its pictures."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    categories = [{"id": 7 + index, "name": name} for index, name in enumerate(COLOURS)]
    ids = {one["name"]: one["id"] for one in categories}
    for index, (image, boxes) in enumerate(pictures(number, seed)):
        Image.fromarray(image).save(folder / f"{index}.png")
        images.append({"id": 100 + index, "file_name": f"{index}.png", "height": SIZE[0], "width": SIZE[1]})
        for name, (x0, y0, x1, y1) in boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"image_id": 100 + index, "category_id": ids[name], "bbox": box, "iscrowd": 0})
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file
