"""The whole chain on a trained run, for `generate.py --run RUN`: recording -> units -> tokens -> sound.

first sound   milliseconds of wall time until a stream has yielded its first sample behind the sound of the prompt. The
              clock starts at the "file" (before the prompt's file is opened, or its text taken) or at the "units" (the
              prompt is read and laid out). The very first call in a process that has just loaded the model, and the
              median of later ones [smallest, largest]; milliseconds of processor time as well, which others on the
              machine do not lengthen.
real time     processor seconds per second of new sound, 3 s of speech continued for 4 s. To sound the prompt is part of
              the work, its seconds are not counted.

The recorded prompt is an espeak voice that is kept from training. Everything runs on one thread; each line of the first
table in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from speechscale.decode.generate import continuations
from speechscale.decode.settings import Decoding
from speechscale.records import Utterance
from speechscale.speak.prompts import prompt_of
from speechscale.speak.speech_lm import Opened, SpeechLM
from speechscale.speak.spoken import new_spans
from speechscale.speak.voice import sound_of
from speechscale.voices.espeak import speak_shard

PROMPT_S, NEW_S = 3.0, 4.0
VOICE = "us-f3"
SPOKEN = "the old woman walked down to the river and looked for the boat that her brother had left there in the spring"
WORDS = 6
USUAL = "once upon a time there was"


def chain(run: Path, repeats: int) -> dict[str, Any]:
    """Measure and print; milliseconds, and processor seconds per second."""
    print(f"\nthe chain of {run.name}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        sound = recorded(Path(folder))
        cases = [(kind, start) for kind in ("speech", "text") for start in ("file", "units")]
        waits = {(kind, start): alone(first_sound, run, kind, start, sound, repeats) for kind, start in cases}
        factors = alone(real_time, run, sound, max(3, repeats // 2))
    print("\n| prompt | clock starts at its | first call, ms | later calls, ms | processor ms |\n|---|---|---|---|---|")
    for (kind, start), times in waits.items():
        if times:
            wall, processor = zip(*times, strict=True)
            print(f"| {kind} | {start} | {wall[0]:.0f} | {spread(wall[1:])} | {spread(processor[1:])} |")
    print("\n| processor seconds per second of new sound | |\n|---|---|")
    for name, values in factors.items():
        print(f"| {name} | {spread(values, digits=3)} |")
    return {"first_sound_ms": {" ".join(case): times for case, times in waits.items()}, "real_time": factors}


def spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def alone(function: Any, *args: Any) -> Any:
    """Call in a fresh process of one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return pool.submit(function, *args).result()


def recorded(folder: Path) -> Path:
    """A wav of somebody who speaks for at least PROMPT_S."""
    said = Utterance(id="prompt", text=SPOKEN, speaker=VOICE, split="test", segments=(SPOKEN,))
    (spoken,) = speak_shard([said])
    soundfile.write(folder / "prompt.wav", spoken.audio, 16_000)
    return folder / "prompt.wav"


def known_text(slm: SpeechLM) -> str:
    """Words that this model knows."""
    if slm.vocabulary.unk_id is None:
        return USUAL
    words = sorted(word for word in slm.vocabulary.text_tokenizer.get_vocab() if word.isalpha())
    return " ".join(words[:: max(1, len(words) // WORDS)][:WORDS])


def first_sound(run: Path, kind: str, start: str, sound: Path, repeats: int) -> list[tuple[float, float]]:
    """Milliseconds, wall and processor, to the first new sound, the very first call first; none without text ids."""
    slm = SpeechLM.from_pretrained(run)
    if kind == "text" and not slm.vocabulary.has_text:
        return []
    text, times = known_text(slm) if kind == "text" else "", []
    for seed in range(repeats + 1):
        settings = slm.settings("speech", seconds=NEW_S, seed=seed, stop="never")
        began = now()
        prompt = prompt_of(text) if text else prompt_of(sound, prompt_s=PROMPT_S)
        opened = slm.opened(prompt, settings)
        if start == "units":
            began = now()
        arrived = [(now(), len(chunk.audio)) for chunk in slm.stream_opened(opened, settings)]
        heard = np.cumsum([samples for _, samples in arrived])
        first = int(np.argmax(heard > samples_of_prompt(slm, opened, settings)))
        wall, processor = 1e3 * (np.array(arrived[first][0]) - began)
        times.append((float(wall), float(processor)))
    return times


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def samples_of_prompt(slm: SpeechLM, opened: Opened, settings: Decoding) -> int:
    """Where the new sound starts in what a stream yields."""
    ((made,),) = slm.continue_opened([opened], settings, [0])
    assert made.rate_hz is not None
    return round(made.prompt_s * made.rate_hz)


def real_time(run: Path, sound: Path, repeats: int) -> dict[str, list[float]]:
    """Processor seconds per second of new sound; one call to warm up."""
    slm = SpeechLM.from_pretrained(run)
    if slm.vocoder is None:
        raise SystemExit(f"{run}: no vocoder beside it; the chain needs one")
    found: dict[str, list[float]] = {}
    for seed in range(repeats + 1):
        new_s, spent = whole(slm, sound, seed)
        spent |= {"streamed": streamed(slm, sound, seed)} | parts(slm, sound, seed)
        for name, seconds in spent.items() if seed else ():
            found.setdefault(name, []).append(seconds / new_s)
    return found


def whole(slm: SpeechLM, sound: Path, seed: int) -> tuple[float, dict[str, float]]:
    """Seconds of new sound, and processor seconds."""
    began = time.process_time()
    made = slm.continue_(prompt_of(sound, prompt_s=PROMPT_S), "speech", seconds=NEW_S, seed=seed, stop="never")
    spent = time.process_time() - began
    assert made.rate_hz is not None
    return len(made.audio) / made.rate_hz - made.prompt_s, {"the chain": spent}


def streamed(slm: SpeechLM, sound: Path, seed: int) -> float:
    began = time.process_time()
    prompt = prompt_of(sound, prompt_s=PROMPT_S)
    for _ in slm.stream(prompt, "speech", seconds=NEW_S, seed=seed, stop="never"):
        pass
    return time.process_time() - began


def parts(slm: SpeechLM, sound: Path, seed: int) -> dict[str, float]:
    """Processor seconds of what `whole` does, one by one."""
    assert slm.vocoder is not None
    settings = slm.settings("speech", seconds=NEW_S, seed=seed, stop="never")
    times = [time.process_time()]
    opened = slm.opened(prompt_of(sound, prompt_s=PROMPT_S), settings)
    times.append(time.process_time())
    ((made,),) = continuations(slm.model, slm.vocabulary, [opened.ids], settings)
    times.append(time.process_time())
    sound_of(tuple(new_spans(slm.vocabulary, made.ids)), opened.units, slm.vocoder, None)
    times.append(time.process_time())
    names = ("of it recording to units", "of it units to tokens", "of it tokens to sound")
    return dict(zip(names, np.diff(times).tolist(), strict=True))
