"""The espeak-ng engine in a process of its own: `python espeak.py` speaks what it reads from its input.

What the engine says depends on all that it said before, so that a fresh process is what makes it repeatable, and on
random numbers that it seeds by the time. Nothing but the standard library is imported, to begin within milliseconds.
"""

import ctypes
import json
import struct
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

RETRIEVE = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h: samples come through the callback before espeak_Synth returns
SPEED, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER: words a minute, and 0 to 99 for pitch and its changes
CHARACTERS, UTF8 = 1, 1


def speak_all(request: Mapping[str, Any], output: BinaryIO) -> None:
    """Write the sample rate and for each utterance its number of samples and the samples, 16 bits; -1 for no voice."""
    library = ctypes.CDLL(request["library"])
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
        *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
    ]
    rate = library.espeak_Initialize(RETRIEVE, 0, request["data"].encode(), 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    output.write(struct.pack("<i", rate))
    spoken: list[bytes] = []

    def keep(samples: int | None, number: int, _events: int | None) -> int:
        if samples and number:
            spoken.append(ctypes.string_at(samples, 2 * number))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(keep)
    library.espeak_SetSynthCallback(callback)
    for utterance in request["utterances"]:
        spoken.clear()
        if library.espeak_SetVoiceByName(utterance["voice"].encode()) != 0:
            output.write(struct.pack("<i", -1))
            return
        for parameter, name in ((SPEED, "speed"), (PITCH, "pitch"), (RANGE, "range")):
            library.espeak_SetParameter(parameter, utterance[name], 0)
        text = utterance["text"].encode()
        library.espeak_Synth(text, len(text) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        samples = b"".join(spoken)
        output.write(struct.pack("<i", len(samples) // 2) + samples)


if __name__ == "__main__":
    speak_all(json.load(sys.stdin), sys.stdout.buffer)
