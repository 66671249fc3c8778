"""What an encoder of recordings costs: `python -m benchmarks.clips` prints CPU milliseconds a clip on one thread.

From the waveform to features, alone and in batches of 16, median and range; process time, so that what else runs does
not count in full. Weights are random, which costs the same.
"""

import statistics
import time
from collections.abc import Iterator

import torch

from graft.backbones.speech import SpeakerLSTM, SpeechBackbone, mel_backbone
from graft.backbones.whisper import WhisperBackbone

SOUND = 0.45  # seconds of sound in each clip, as of a spoken digit
ROUNDS = 7
WHISPERS = ((0.8, 3), (0.8, 5), (0.8, None), (2.0, None), (30.0, None))  # seconds of a clip, layer


def backbones() -> Iterator[tuple[str, SpeechBackbone]]:
    yield "mel_cnn, 0.8 s", mel_backbone("tf_efficientnet_lite0", "timm", clip_seconds=0.8)
    yield "speaker_lstm, 0.8 s", SpeakerLSTM(clip_seconds=0.8)
    for seconds, layer in WHISPERS:
        name = f"whisper, {seconds:g} s" + ("" if layer is None else f", layer={layer}")
        yield name, WhisperBackbone(clip_seconds=seconds, layer=layer)


@torch.no_grad()
def milliseconds(backbone: SpeechBackbone, clips: int, rounds: int) -> list[float]:
    """CPU time of each round, per clip."""
    spec = backbone.eval().input_spec
    transform, found = spec.transform(), []
    waves = [0.1 * torch.randn(int(spec.sample_rate * SOUND)) for _ in range(clips)]
    backbone(transform.collate(waves))
    for _ in range(rounds):
        began = time.process_time()
        backbone(transform.collate(waves))
        found.append(1000 * (time.process_time() - began) / clips)
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, backbone in backbones():
        rounds = 1 if name.startswith("whisper, 30") else ROUNDS
        alone = milliseconds(backbone, 1, rounds)
        parameters = sum(one.numel() for one in backbone.parameters()) / 1e6
        line = (
            f"{name}: {parameters:.1f} M, alone {statistics.median(alone):.1f} ({min(alone):.1f} to {max(alone):.1f})"
        )
        if rounds > 1:
            line += f", in a batch {statistics.median(milliseconds(backbone, 16, 2)):.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
