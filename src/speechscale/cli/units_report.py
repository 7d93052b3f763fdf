"""`speechscale units report`: how good a tokenizer's units are on a corpus."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("tokenizer", type=click.Path(path_type=Path))
@click.argument("corpus", metavar="CORPUS_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--phones", "tier", metavar="TIER", default="phones", show_default=True, help="Phone tier of TextGrids.")
@click.option("--alignments", type=click.Path(path_type=Path), help="Folder of TextGrids [found beside the audio].")
@click.option("--speakers", metavar="REGEX", help="Of a plain folder: its first group in a file's name is the speaker.")
@click.option("--split", help="Only this split of the corpus.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True, help="At most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for quality.json and quality.html.")
def report(
    tokenizer: Path,
    corpus: Path,
    tier: str,
    alignments: Path | None,
    speakers: str | None,
    split: str | None,
    hours: float,
    seed: int,
    out: Path | None,
) -> None:
    """Judge the units of TOKENIZER on a corpus with word or phone times, or a folder of audio and TextGrids.

    Without phones: costs, speakers and, with word times, word retrieval. With phones also PNMI, purities and the shift
    curve, whose peak is away from zero if the units are.
    """
    from speechscale.corpus.judging import judge
    from speechscale.files import write_json
    from speechscale.speech.quality_page import quality_table, table_text, write_quality_page
    from speechscale.speech.units import SpeechTokenizer

    loaded = SpeechTokenizer.load(tokenizer)
    judged = judge(
        loaded, corpus, tier=tier, alignments=alignments, speakers=speakers, split=split, hours=hours, seed=seed
    )
    click.echo(table_text(quality_table(judged.quality)))
    for skip in judged.skips:
        click.echo(f"left out: {skip.id}: {skip.reason}; {skip.remedy}", err=True)
    if loaded.fit.get("supervised"):
        click.echo("these units are SUPERVISED (phone labels): not textless")
    if out is None:
        return
    supervised = bool(loaded.fit.get("supervised"))
    facts = {
        "encoder": loaded.encoder_name,
        "supervised": "yes, phone labels: not textless" if supervised else "no",
        "tokenizer fingerprint": loaded.fingerprint,
        "left out": str(len(judged.skips)),
    }
    title = f"Units of {tokenizer.name} on {corpus.name}"
    write_quality_page(out / "quality.html", judged.quality, title=title, facts=facts)
    write_json(
        out / "quality.json",
        {
            "encoder": loaded.encoder_name,
            "fingerprint": loaded.fingerprint,
            "supervised": supervised,
            "corpus": corpus.name,
            "left_out": len(judged.skips),
            "quality": judged.quality.to_json(),
        },
    )
    click.echo(f"written: {out / 'quality.json'}, {out / 'quality.html'}")
