"""Small pictures with captions, and such pictures with the colour as their class."""

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
LIGHTS = {"bright": 1.0, "dark": 0.4}


def write_pairs(folder, count=60):
    """`pairs.csv`, in which every eighth row is the picture of the one before it with another caption; its file."""
    random, lines = np.random.default_rng(0), []
    for number in range(count):
        colour, light = list(COLOURS)[number % 3], list(LIGHTS)[number // 3 % 2]
        name = f"pair_{number if number % 8 else max(number - 1, 0)}.png"
        caption = f"a {light} {colour} picture"
        if number % 8 == 0 and number:
            colour, light = list(COLOURS)[(number - 1) % 3], list(LIGHTS)[(number - 1) // 3 % 2]
            caption = f"{colour} and {light}"
        else:
            picture(folder / name, colour, light, random)
        lines.append(f"{name},{caption}")
    file = folder / "pairs.csv"
    file.write_text("\n".join(["path,caption", *lines]) + "\n")
    return file


def write_classes(folder, count=60):
    """`classes.csv`, whose labels are colours; its file."""
    random, lines = np.random.default_rng(1), []
    for number in range(count):
        colour, light = list(COLOURS)[number % 3], list(LIGHTS)[number // 3 % 2]
        picture(folder / f"class_{number}.png", colour, light, random)
        lines.append(f"class_{number}.png,{colour}")
    file = folder / "classes.csv"
    file.write_text("\n".join(["path,label", *lines]) + "\n")
    return file


def picture(file, colour, light, random):
    """A file of one colour with noise."""
    pixels = np.array(COLOURS[colour]) * LIGHTS[light] + random.normal(0, 12, (16, 16, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def options(folder):
    """What a run says of the two files: pairs without labels are the source, the target has classes."""
    return [
        *("data=image_folder", "data.num_workers=0", "data.image_size=16", "backbone=lenet", "logger=[]"),
        *("data/domain@data.target=image_file", f"data.target.file={write_classes(folder)}", "trainer=cpu"),
        *("data/domain@data.source=image_file", f"data.source.file={write_pairs(folder)}", "data.source.label=null"),
        *("head=class_names", "head.tower.size=16", "head.tower.hidden=16", "data.labels_per_class=null"),
        'head.templates=["a bright {} picture","a dark {} picture"]',
    ]
