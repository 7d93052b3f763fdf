"""Small sources of every form, made for tests of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem, Source
from speechscale.records import Item, Word
from speechscale.skips import SkipLog

FACTS = Facts(
    task="toy",
    title="Toy",
    version="1",
    paper="nobody 2026",
    licence="CC0",
    origin="download https://example.org/toy.zip",
)
GOOD_WORDS = (
    Word(text="tom", start_s=0.0, end_s=0.3),
    Word(text="ran", start_s=0.3, end_s=0.5),
    Word(text="home", start_s=0.6, end_s=1.0),
)
BAD_WORDS = (*GOOD_WORDS[:2], Word(text="rome", start_s=0.6, end_s=1.0))


def noise(path: Path, seconds: float = 1.0, *, rate_hz: int = 16_000, seed: int = 0, level: float = 0.1) -> Path:
    """The same seed gives the same samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = level * np.random.default_rng(seed).standard_normal(round(rate_hz * seconds))
    soundfile.write(path, np.clip(samples, -1, 1).astype(np.float32), rate_hz)
    return path


def source(items: Iterable[RawItem], root: Path | None = None, skips: SkipLog | None = None) -> Source:
    return Source(facts=FACTS, root=root, items=items, skips=skips or SkipLog())


def item(id: str = "a", **fields: Any) -> Item:
    return Item(**{"id": id, "set": "toy", "pair": id.partition("@")[0], **fields})


def joined(root: Path, id: str = "a", seed: int = 0, **fields: Any) -> RawItem:
    """An item with two recordings of a second each."""
    clips = {side: f"{id}-{side}.wav" for side in ("good", "bad")}
    for number, path in enumerate(clips.values()):
        noise(root / path, seed=2 * seed + number)
    return RawItem(item=item(id, **fields), **{side: Clip(path=path) for side, path in clips.items()})


def apart(root: Path, id: str = "a", seed: int = 0, ending_hz: int = 16_000) -> RawItem:
    """A prompt of 0.5 s and endings of 0.25 s."""
    noise(root / f"{id}-p.wav", 0.5, seed=3 * seed)
    noise(root / f"{id}-g.wav", 0.25, seed=3 * seed + 1, rate_hz=ending_hz)
    noise(root / f"{id}-b.wav", 0.25, seed=3 * seed + 2, rate_hz=ending_hz)
    return RawItem(
        item=item(id, prompt="Tom ran.", good="he won.", bad="he lost."),
        prompt=Clip(path=f"{id}-p.wav"),
        good_ending=Clip(path=f"{id}-g.wav"),
        bad_ending=Clip(path=f"{id}-b.wav"),
    )


def texts(count: int = 3) -> list[RawItem]:
    names = ("Tom", "Ann", "Sam", "Kim")
    return [
        RawItem(item=item(f"t{i}", prompt=f"{names[i]} ran. It was late.", good="the end came", bad="the cat came"))
        for i in range(count)
    ]
