"""`speechscale eval abx`: are spoken words told apart by their units alone?"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--units", type=click.Path(path_type=Path), required=True, help="Folder of `units encode`, or a file.")
@click.option("--split", default="all", show_default=True, help="Of the utterances; 'all' for all.")
@click.option("--min-count", type=click.IntRange(min=2), default=2, show_default=True, help="Times a word is said.")
@click.option("--max-words", type=click.IntRange(min=2), default=100, show_default=True, help="Drawn from those.")
@click.option("--max-tokens", type=click.IntRange(min=2), default=10, show_default=True, help="Per word and speaker.")
@click.option("--max-speakers", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--durations", is_flag=True, help="Also compare frames with their durations (warped), for contrast.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def abx(
    units: Path,
    split: str,
    min_count: int,
    max_words: int,
    max_tokens: int,
    max_speakers: int,
    durations: bool,
    seed: int,
    out: Path | None,
) -> None:
    """ABX error of words as sequences of units without durations, within and across speakers; chance is 0.5."""
    from dataclasses import asdict, replace

    from speechscale.evals.analysis.abx import AbxConfig
    from speechscale.evals.analysis.abx import abx as measure
    from speechscale.evals.analysis.abx_tokens import Token, labeled, word_instances
    from speechscale.files import write_json
    from speechscale.tokens.unit_sources import UnitSource

    source = UnitSource(path=units, split=split)
    recipe, files = source.open()
    tokens, words = list[Token](), 0
    for part, _ in source.tables(files):
        tokens += word_instances(labeled(part), part.frame_rate_hz)
        words += len(part.words)
    config = AbxConfig(
        min_count=min_count, max_categories=max_words, max_tokens=max_tokens, max_speakers=max_speakers, seed=seed
    )
    result = measure(tokens, config)
    figures = list(result.figures)
    if durations:
        figures += measure(tokens, replace(config, distance="dtw")).figures
    for figure in figures:
        what = "units" if figure.distance == "edit" else "frames"
        band = "" if figure.low is None else f" [{figure.low:.4f}, {figure.high:.4f}]"
        click.echo(
            f"{figure.condition} speakers, {what}: {figure.error:.4f}{band}, {figure.categories} words, "
            f"{figure.pairs:,} pairs, {figure.triples:,} triples, {figure.ties:.1%} tied"
        )
    click.echo("taken: " + ", ".join(f"{name} {kept:,} of {of:,}" for name, (kept, of) in result.taken.items()))
    if out is None:
        return
    settings = {name: value for name, value in asdict(config).items() if name != "distance"}
    write_json(
        out,
        {
            "format": "speechscale abx",
            "format_version": 1,
            "units": recipe,
            "config": settings,
            "words": {"cut": len(tokens), "left out": words - len(tokens)},
            "taken": {name: list(pair) for name, pair in result.taken.items()},
            "figures": [asdict(figure) for figure in figures],
        },
    )
    click.echo(f"written: {out}")
