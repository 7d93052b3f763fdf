"""`speechscale publish RUN OUT`: a model or data set with card and checksums; `--push OWNER/NAME` sends it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from speechscale.publish.bundle import BundleFile
    from speechscale.report.card_facts import Terms

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH)
@click.argument("out", type=_PATH, required=False)
@click.option("--best", metavar="ARM|PART/ARM", help="SOURCE is a study: take the best run of this arm.")
@click.option("--dataset", is_flag=True, help="SOURCE is a corpus, or a folder of units.")
@click.option("--license", "license_", default="", help="Identifier of the hub, e.g. apache-2.0; needed to push.")
@click.option("--license-name", default="", help="Of license 'other'.")
@click.option("--license-link", default="", help="Of license 'other': its address.")
@click.option("--name", default="", help="Of the model or data set [its folder's].")
@click.option("--results", multiple=True, type=_PATH, help="Folder of eval run or eval generate; may be repeated.")
@click.option("--samples", type=_PATH, help="Folder of speechscale generate [the study's samples].")
@click.option("--tokenizer", type=_PATH, help="Speech tokenizer; a study's run knows its own.")
@click.option("--vocoder", type=_PATH, help="Vocoder; a study's run knows its own.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="Cast the weights [as they are].")
@click.option("--corpus", type=_PATH, help="--dataset of units: their corpus, for hours under each licence.")
@click.option("--with-data", is_flag=True, help="--dataset: copy the data too, not only its checksums.")
@click.option("--repo", metavar="OWNER/NAME", help="Show what a push there would send; nothing is sent.")
@click.option("--push", "pushed", metavar="OWNER/NAME", help="Send it to the hub.")
@click.option("--public", is_flag=True, help="A repository made by --push is public [private].")
def publish(
    source: Path,
    out: Path | None,
    best: str | None,
    dataset: bool,
    license_: str,
    license_name: str,
    license_link: str,
    name: str,
    results: tuple[Path, ...],
    samples: Path | None,
    tokenizer: Path | None,
    vocoder: Path | None,
    dtype: str | None,
    corpus: Path | None,
    with_data: bool,
    repo: str | None,
    pushed: str | None,
    public: bool,
) -> None:
    """Make the folder OUT of a run (or a data set) with card and checksums, and list what is in it.

    SOURCE is a study's run, a training job's folder, a model with vocabulary.json, with --best a study, with --dataset
    a corpus or units. Without OUT, SOURCE is a folder made here before. Nothing is sent without --push.
    """
    from speechscale.report.card_facts import Terms

    if repo and pushed and repo != pushed:
        raise click.UsageError("--repo and --push name two repositories")
    for_models = {"--best": best, "--results": results, "--samples": samples, "--tokenizer": tokenizer}
    for_models |= {"--vocoder": vocoder, "--dtype": dtype}
    for_data = {"--corpus": corpus, "--with-data": with_data}
    for_both = {"--license": license_, "--license-name": license_name, "--license-link": license_link, "--name": name}
    if out is None:
        _refuse({"--dataset": dataset, **for_both, **for_models, **for_data}, "is for making a folder; name OUT")
    elif dataset:
        _refuse(for_models, "is for models")
    else:
        _refuse(for_data, "needs --dataset")
    _refuse({"--public": public and not (pushed or repo)}, "needs --push or --repo")
    terms = Terms(license=license_, name=license_name, link=license_link)
    if out is None:
        kind = _made_before(source)
        files = _verified(source)
        folder = source
    elif dataset:
        kind, folder = "dataset", out
        if pushed or repo:
            from speechscale.report.card_check import check_repo

            check_repo(pushed or repo or "")
        files = _dataset(source, out, terms, name, corpus, with_data)
    else:
        kind, folder = "model", out
        from speechscale.publish.models import Wanted, publish_model

        wanted = Wanted(
            terms=terms,
            name=name,
            repo=pushed or repo or "",
            results=results,
            samples=samples,
            tokenizer=tokenizer,
            vocoder=vocoder,
            dtype=dtype,
        )
        made = publish_model(_chosen(source, best), out, wanted)
        for note in made.notes:
            click.echo(f"note: {note}")
        files = made.files
    _send(folder, files, kind, repo or pushed, send=pushed is not None, public=public)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """An option that would do nothing is a mistake of the user's, and is told so."""
    for option, value in options.items():
        if value:
            raise click.UsageError(f"{option} {why}")


def _chosen(source: Path, best: str | None) -> Path:
    if best is None:
        return source
    from speechscale.publish.choose import best_run

    run = best_run(source, best)
    click.echo(f"best run by its selection loss: {run.parent.name}/{run.name}")
    return run


def _dataset(
    source: Path, out: Path, terms: Terms, name: str, corpus: Path | None, with_data: bool
) -> tuple[BundleFile, ...]:
    from speechscale.publish.datasets import publish_dataset

    made = publish_dataset(source, out, terms=terms, name=name, corpus=corpus, data=with_data)
    for note in made.notes:
        click.echo(f"note: {note}")
    return made.files


def _made_before(folder: Path) -> Literal["model", "dataset"]:
    from speechscale.publish.bundle import SUMS

    if not (folder / SUMS).is_file():
        raise click.UsageError(f"{folder} has no {SUMS}; name OUT, the folder to make")
    return "model" if (folder / "config.json").is_file() else "dataset"


def _verified(folder: Path) -> tuple[BundleFile, ...]:
    from speechscale.publish.bundle import verify_bundle

    return tuple(verify_bundle(folder))


def _send(
    folder: Path,
    files: tuple[BundleFile, ...],
    kind: Literal["model", "dataset"],
    repo: str | None,
    *,
    send: bool,
    public: bool,
) -> None:
    """List, and send if asked."""
    if repo is None:
        for file in files:
            click.echo(f"{file.bytes:>13,}  {file.sha256}  {file.path}")
        total = sum(file.bytes for file in files)
        click.echo(
            f"{folder}: {len(files)} files, {total:,} bytes, checksums hold; nothing was sent (--push OWNER/NAME)"
        )
        return
    from speechscale.publish.hub import plan_push, push

    plan = plan_push(folder, repo, kind=kind, public=public)
    for line in plan.lines():
        click.echo(line)
    click.echo(f"sent: {push(plan)}" if send else "nothing was sent; --push instead of --repo sends it")
