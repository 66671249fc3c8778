"""The usual way to load photos: torchvision's ImageFolder with transforms on PIL images, in the main process."""

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.peers.graft import exhaust
from benchmarks.turns import Plan, Turn

SIDE, LARGER = 96, 110  # pixels; Graft resizes to the side over .875 before it crops
HALF = (0.5, 0.5, 0.5)


def load_plain(plan: Plan, turn: Turn) -> None:
    """Resized and cropped in the middle."""
    load(plan, turn, [transforms.Resize(LARGER), transforms.CenterCrop(SIDE)])


def load_augmented(plan: Plan, turn: Turn) -> None:
    """A random crop, and mirrored or not."""
    load(plan, turn, [transforms.RandomResizedCrop(SIDE, scale=(0.35, 1.0)), transforms.RandomHorizontalFlip()])


def load(plan: Plan, turn: Turn, geometry: list) -> None:
    """Load epoch after epoch until no turn is left; `plan.images` is the folder of photos."""
    steps = transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(HALF, HALF)])
    loader = DataLoader(ImageFolder(str(plan.images / "train"), steps), plan.batch_size, shuffle=True, num_workers=0)
    for _ in range(plan.epochs):
        turn.begin()
        exhaust(loader)
