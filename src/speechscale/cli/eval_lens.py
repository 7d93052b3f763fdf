"""`speechscale eval lens`: does a layer carry the word's text token while the model hears the word?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--units", type=click.Path(path_type=Path), required=True, help="Folder of `units encode`, or a file.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Speech tokenizer, to check that it made the units.")
@click.option("--heard", type=click.Path(path_type=Path), help="Units of the training speech, to tell words only read.")
@click.option("--utterances", type=click.IntRange(min=1), default=200, show_default=True, help="Drawn from the split.")
@click.option("--split", default="test", show_default=True, help="Of the utterances; 'all' for all.")
@click.option("--opening", type=click.Choice(["plain", "speech"]), default="plain", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
def lens(
    model: Path,
    units: Path,
    tokenizer: Path | None,
    heard: Path | None,
    utterances: int,
    split: str,
    opening: str,
    seed: int,
    device: str,
    out: Path,
) -> None:
    """Read every layer of MODEL as text while it hears UNITS; MODEL is a study's run or a model's folder.

    Writes lens.json, lens.html and lens.parquet. The opening "plain" is `<eos>` and units, as in training; "speech" has
    the marker `<speech>` in front. Words only read are told apart by --heard, or by the split "train" of UNITS.
    """
    from dataclasses import asdict

    from speechscale.evals.analysis.lens import look, top_tokens
    from speechscale.evals.analysis.lens_records import LensConfig, write_words
    from speechscale.evals.analysis.lens_summary import summarize, typical_utterance
    from speechscale.evals.weights import weights_sha256
    from speechscale.files import write_json
    from speechscale.model.folders import load_model
    from speechscale.progress import ProgressLine
    from speechscale.report.lens_page import verdict, write_lens_page
    from speechscale.skips import SkipLog
    from speechscale.study.devices import resolved
    from speechscale.study.located import locate
    from speechscale.study.steps import versions

    found = locate(model, tokenizer=tokenizer)
    table, recipe = _speech(units, split, found.speech_tokenizer, utterances, seed)
    words = _heard(units, "train") if heard is None else _heard(heard, None)
    loaded, vocabulary = load_model(found.folder).to(resolved(device)), found.load_vocabulary()
    config, skips = LensConfig(opening="speech" if opening == "speech" else "plain"), SkipLog()
    with ProgressLine("looked at") as watch:
        seen = look(loaded, vocabulary, table, config=config, heard=words, skips=skips, watch=watch)
    figures = summarize(seen, seed=seed)
    best = figures["best"]["layer"]
    example = top_tokens(loaded, vocabulary, table, seen.rows[typical_utterance(seen, best)], config)
    record: dict[str, Any] = {
        "format": "speechscale lens",
        "format_version": 1,
        "stamp": {
            "model": {
                "name": found.name,
                "sha256": weights_sha256(loaded),
                "params_total": sum(p.numel() for p in loaded.parameters()),
            },
            "vocabulary": vocabulary.fingerprint,
            "speech_tokenizer": recipe["speech_tokenizer"],
            "versions": versions(),
        },
        "units": recipe,
        "config": asdict(config) | {"seed": seed, "utterances": utterances},
        "figures": figures,
        "dropped": len(skips),
        "example": example,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_words(out / "lens.parquet", seen)
    skips.write(out / "skips.jsonl")
    write_lens_page(out / "lens.html", record)
    write_json(out / "lens.json", record)
    for line in verdict(figures):
        click.echo(line)
    if len(skips):
        click.echo(f"{len(skips)} utterances left out (skips.jsonl): {skips.first()}")
    click.echo(f"written: {out / 'lens.html'}, lens.json, lens.parquet")


def _speech(path: Path, split: str, tokenizer: Path | None, most: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """Utterances of a split, at most so many, and their recipe. Raises DataError if another tokenizer made them."""
    import numpy as np

    from speechscale.errors import DataError
    from speechscale.records import UnitTable, concat_tables
    from speechscale.speech.units import SpeechTokenizer
    from speechscale.tokens.unit_sources import UnitSource

    source = UnitSource(path=path, split=split)
    recipe, files = source.open()
    if tokenizer is not None:
        made = SpeechTokenizer.load(tokenizer).fingerprint
        if made != recipe["speech_tokenizer"]:
            raise DataError(
                f"units {path}: made by tokenizer {recipe['speech_tokenizer'][:12]}, the model hears units of "
                f"{made[:12]}; encode the speech with {tokenizer}"
            )
    # Counted first, then drawn, so that no more than one part of a large corpus is held besides what is drawn.
    sizes = [len(part) for part, _ in source.tables(files)]
    total = sum(sizes)
    chosen = (
        np.sort(np.random.default_rng(seed).choice(total, most, replace=False)) if total > most else np.arange(total)
    )
    drawn, before = list[UnitTable](), 0
    for (part, _), size in zip(source.tables(files), sizes, strict=True):
        own = chosen[(chosen >= before) & (chosen < before + size)] - before
        if len(own) or not drawn:
            drawn.append(part.take(own.tolist()))
        before += size
    return concat_tables(drawn), recipe


def _heard(path: Path, split: str | None) -> set[str] | None:
    """Distinct words of a split (None: of all); None where there are none."""
    from speechscale.tokens.unit_sources import UnitSource

    source, words = UnitSource(path=path), set[str]()
    for part, _ in source.tables(source.open()[1]):
        for row, found in enumerate(part.splits):
            if split in (None, found):
                words.update(part.row_words(row))
    return words or None
