"""`speechscale tokens subwords`: pieces of units from a folder of units, and how far they compress."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("units", metavar="UNITS_FOLDER", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.json", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["unigram", "bpe"]), default="unigram", show_default=True)
@click.option("--size", type=click.IntRange(min=2), default=5000, show_default=True, help="Pieces, units included.")
@click.option("--split", default="train", show_default=True, help="Split to train on; 'all' for all.")
@click.option("--longest", type=click.IntRange(min=2), default=16, show_default=True, help="Units in a piece at most.")
@click.option(
    "--max-units",
    type=click.IntRange(min=1),
    default=5_000_000,
    show_default=True,
    help="Train on about so many units, whole sequences drawn by the seed.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def subwords(units: Path, out: Path, kind: str, size: int, split: str, longest: int, max_units: int, seed: int) -> None:
    """Learn SIZE pieces of units from UNITS_FOLDER, write them to OUT.json and report how far they compress."""
    from collections.abc import Iterator
    from dataclasses import replace

    import numpy as np

    from speechscale.corpus.unit_corpus import open_units
    from speechscale.errors import DataError
    from speechscale.tokens.ragged import Ragged
    from speechscale.tokens.subwords_report import CompressionReport
    from speechscale.tokens.subwords_training import train_subwords

    if out.exists():
        raise DataError(f"{out}: exists; choose another output or delete it")
    corpus = open_units(units)
    found = set[str]()

    def sequences() -> Iterator[np.ndarray]:
        for table in corpus.tables():
            found.update(table.splits)
            yield from (table.row_units(row) for row, name in enumerate(table.splits) if split in ("all", name))
        if split != "all" and split not in found:
            raise DataError(f"units {units}: no utterance in split '{split}'; splits: {', '.join(sorted(found))}, all")

    made = train_subwords(
        sequences(),
        kind,
        size,
        corpus.tokenizer.num_units,
        seed,
        longest_piece=longest,
        max_units=max_units,
    )
    made = replace(made, record={**made.record, "split": split, "speech_tokenizer": corpus.tokenizer.fingerprint})
    report = CompressionReport(made)
    for table in corpus.tables():
        report.add(Ragged(table.units, table.unit_offsets), table.splits)
    made.save(out)
    click.echo(
        f"{out}: {made.size:,} {kind} pieces of {made.num_units} units, trained on {made.record['units_used']:,} of "
        f"{made.record['units_read']:,} units, at most {int(made.units_per_piece.max())} units in a piece"
    )
    click.echo(report.text())
