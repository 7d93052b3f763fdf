"""Options that `speak` and `generate` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
_OPTIONS = (
    click.option("--seconds", type=click.FloatRange(min=0.1), help="How much new speech, about.  [4]"),
    click.option("--max-new", type=click.IntRange(min=1), help="New tokens at most; wins over --seconds."),
    click.option(
        "--prompt-s", type=click.FloatRange(min=0, min_open=True), help="First seconds of a recording  [all]."
    ),
    click.option(
        "--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, help="0: the likeliest."
    ),
    click.option("--top-k", type=click.IntRange(min=0), default=25, show_default=True, help="0: no limit."),
    click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="[no limit]"),
    click.option("--min-p", type=click.FloatRange(min=0, max=1), help="Of the likeliest's probability  [no limit]."),
    click.option("--repetition-penalty", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True),
    click.option(
        "--stop",
        type=click.Choice(["eos", "switch", "never"]),
        default="eos",
        show_default=True,
        help="End at <eos>; also where the model would switch modality (end of an utterance); or never.",
    ),
    click.option("--window", type=click.IntRange(min=16), help="Tokens of context that slide over long output."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--tokenizer", type=PATH, help="Folder of the speech tokenizer; a run or bundle knows its own."),
    click.option("--vocoder", type=PATH, help="Folder or checkpoint of the vocoder; a run or bundle knows its own."),
    click.option("--speaker", help="One of the vocoder's voices [the first]."),
    click.option("--revision", help="Of a hub name."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or auto."),
    click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True),
    click.option("--compile", is_flag=True, help="Compile steps first (tens of seconds); for long work."),
)
LOADING = ("tokenizer", "vocoder", "revision", "device", "dtype", "compile")


def decode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def decoding(slm: Any, into: str, options: dict[str, Any], **more: Any) -> Any:
    """The `Decoding` that the options ask for."""
    names = ("temperature", "top_p", "min_p", "repetition_penalty", "stop", "window", "seed")
    return slm.settings(
        into,
        seconds=options["seconds"],
        max_new_tokens=options["max_new"],
        top_k=options["top_k"] or None,
        **{name: options[name] for name in names},
        **more,
    )
