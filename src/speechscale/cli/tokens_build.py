"""`speechscale tokens build|verify`: units and texts to a token store, and is it still whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from speechscale.tokens.store import TokenStore

HINT_SHARE = 0.01
"""More unknown tokens than this, and a remedy is named."""


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--units", multiple=True, type=click.Path(path_type=Path), help="Folder of 'units encode', or a file.")
@click.option("--text", "texts", multiple=True, help="File or folder of texts, or hf:NAME of a dataset.")
@click.option("--text-field", default="", help="Column or key that holds the text.")
@click.option(
    "--text-format", default="auto", show_default=True, help="stories, paragraphs, lines, jsonl, csv, parquet."
)
@click.option("--tokenizer", help="words, bpe, a tokenizer.json, a folder, or OWNER/NAME of the hub.  [default: words]")
@click.option("--text-size", type=click.IntRange(min=3), help="Ids of words or bpe, at most.  [default: 2000]")
@click.option("--eos", default="", metavar="TOKEN", help="Token of --tokenizer that ends documents [as its files say].")
@click.option("--spelling", default="", metavar="NAME", help="Of units: slamkit, spiritlm, speechgpt, or a format.")
@click.option("--vocabulary", type=click.Path(path_type=Path), help="Folder of a vocabulary, instead of a new one.")
@click.option("--subwords", type=click.Path(path_type=Path), help="Subwords of units: their file, or its folder.")
@click.option("--quality", type=click.Choice(["none", "sims", "gopher"]), default="none", show_default=True)
@click.option("--split", default="all", show_default=True, help="Of units and hub datasets: train, select, test, all.")
@click.option("--text-split", default="all", show_default=True, help="Of files: train, or 1 % each: select, test.")
@click.option("--max-texts", type=click.IntRange(min=1), help="Read no more of each source.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of one thread.")
@click.option("--append", is_flag=True, help="Add to the store that is in OUT.")
def build(
    out: Path,
    units: tuple[Path, ...],
    texts: tuple[str, ...],
    text_field: str,
    text_format: str,
    tokenizer: str | None,
    text_size: int | None,
    eos: str,
    spelling: str,
    vocabulary: Path | None,
    subwords: Path | None,
    quality: str,
    split: str,
    text_split: str,
    max_texts: int | None,
    workers: int,
    append: bool,
) -> None:
    """Build OUT/store and OUT/vocabulary from units and texts; run it again to go on after an interruption."""
    from speechscale.corpus.text_quality import quality_rules
    from speechscale.corpus.text_sources import HUB, TextSource
    from speechscale.progress import ProgressLine
    from speechscale.tokens.build_checks import check_out
    from speechscale.tokens.building import UnitSource, build_tokens
    from speechscale.tokens.vocabulary import Vocabulary
    from speechscale.tokens.vocabulary_choice import VocabularyOptions, check_options, new_vocabulary

    check_out(out, append)
    unit_sources = [UnitSource(path=path, split=split) for path in units]
    text_sources = [
        TextSource(
            path=path if path.startswith(HUB) else Path(path),
            field=text_field,
            format=text_format,
            split=split if path.startswith(HUB) else text_split,
            quality=quality_rules(quality),
            max_documents=max_texts,
        )
        for path in texts
    ]
    options = VocabularyOptions(
        tokenizer=tokenizer or "", text_size=text_size, subwords=subwords, eos=eos, spelling=spelling
    )
    saved = vocabulary or out / "vocabulary"
    if vocabulary or append or (saved / "vocabulary.json").is_file():  # a run that goes on keeps its ids
        ids = Vocabulary.load(saved)
        goes_on = not vocabulary and not append
        check_options(
            ids, saved, options, (lambda: new_vocabulary(unit_sources, text_sources, options)) if goes_on else None
        )
        click.echo(f"{saved}: the vocabulary that is there is used")
    else:
        ids = new_vocabulary(unit_sources, text_sources, options)
    with ProgressLine("parts") as watch:
        store = build_tokens(
            out, ids, units=unit_sources, texts=text_sources, append=append, workers=workers, watch=watch
        )
    _tell(out, store)


def _tell(out: Path, store: TokenStore) -> None:
    counts = store.counts
    tokens = counts.get("units", 0) + counts.get("text_tokens", 0)
    click.echo(
        f"{out}: {store.vocabulary.size:,} ids; {tokens:,} unit and text tokens in {store.bytes / 1e6:,.1f} MB "
        f"({store.bytes / max(tokens, 1):.2f} bytes per token)"
    )
    if counts["speech_documents"]:
        hours = f"{store.speech_hours:.2f} h"
        click.echo(f"  speech: {counts['speech_documents']:,} utterances, {counts['units']:,} units, {hours}")
    if counts.get("words"):
        click.echo(
            f"  interleaved: {counts['interleaved_documents']:,} utterances with timed words, "
            f"{counts['words']:,} words ({counts['words_without_time']:,} without a time) "
            f"of {counts['word_tokens']:,} text tokens"
        )
    if counts["text_documents"]:
        click.echo(f"  text: {counts['text_documents']:,} documents, {counts['text_tokens']:,} tokens")
    _tell_unknown(counts)
    for source in store.meta["sources"]:
        dropped, total = sum(source["dropped"].values()), source["read"] + source.get("other_splits", 0)
        cut = source["split"] != "all" and not source.get("hub")
        read = f"{source['read']:,} of {total:,} in split {source['split']}" if cut else f"{total:,} read"
        click.echo(f"  {source['name']}: {read}, {source['kept']:,} kept, {dropped:,} dropped")
        if not total:
            click.echo(f"    nothing is in {source['name']}; was it meant to be empty?")
        for remedy, count in source["dropped"].items():
            click.echo(f"    {count:,} dropped: {remedy} (skips.jsonl)")


def _tell_unknown(counts: Mapping[str, int]) -> None:
    for what in ("word", "text"):
        unknown, tokens = counts.get(f"unknown_{what}_tokens", 0), counts.get(f"{what}_tokens", 0)
        if unknown:
            name = "words of utterances" if what == "word" else "texts"
            hint = "; --tokenizer bpe or a larger --text-size spells more" if unknown > HINT_SHARE * tokens else ""
            click.echo(f"  {unknown / tokens:.2%} of the tokens of {name} are unknown ({unknown:,}){hint}")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def verify(out: Path) -> None:
    """Hash everything in OUT (of 'tokens build', a store, or packed rows); exit code 2 if something is wrong."""
    from speechscale.files import read_json
    from speechscale.tokens.columns import INDEX_FILE
    from speechscale.tokens.packed_rows import ROWS_FORMAT, packed_damage, read_rows_meta
    from speechscale.tokens.store import store_damage
    from speechscale.tokens.store_index import check_vocabulary, read_meta
    from speechscale.tokens.vocabulary import Vocabulary

    folder = out / "store" if (out / "store").is_dir() else out
    index = folder / INDEX_FILE
    if index.is_file() and read_json(index, "index", "make it again").get("format") == ROWS_FORMAT:
        meta = read_rows_meta(folder)
        seal, wrong = meta["meta_sha256"], list(packed_damage(folder))
    else:
        meta = read_meta(folder)
        if (out / "vocabulary").is_dir():
            check_vocabulary(folder, meta, Vocabulary.load(out / "vocabulary"))
        seal, wrong = meta["index_sha256"], list(store_damage(folder))
    for message in wrong:
        click.echo(f"error: {message}", err=True)
    if wrong:
        click.get_current_context().exit(2)
    size = sum((folder / f"{name}.bin").stat().st_size for name in meta["columns"])
    click.echo(f"{folder}: {len(meta['columns'])} columns, {size / 1e6:,.1f} MB, all as written (index {seal[:12]})")
