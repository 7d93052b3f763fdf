"""Make the folder of a model that travels: bundle, card, samples, checksums.

Enters: the folder of a study's run, a training job or a model. Leaves: a new folder, verified after it was written. The
one decision worth knowing: everything is made in a hidden folder beside it and moved into place whole, card and
checksums last, so that a folder with a card is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechscale.files import read_json
from speechscale.model.interop_stock import new_folder
from speechscale.model.stock import Exported, export_stock
from speechscale.publish.bundle import CARD, BundleFile, verify_bundle, write_sums
from speechscale.publish.eval_facts import read_results_folders
from speechscale.publish.job_facts import job_facts
from speechscale.publish.model_parts import id_facts, shape_of_model, unit_facts
from speechscale.publish.samples import MOST, copy_samples, generated_samples, study_samples
from speechscale.publish.study_facts import study_facts
from speechscale.report.card_check import check_repo
from speechscale.report.card_facts import ComputeFacts, ModelFacts, SampleFacts, StartFacts, Terms
from speechscale.report.cards import model_card
from speechscale.study.located import Located, locate
from speechscale.study.steps import read_record
from speechscale.train.run_folder import JOB


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to make.

    Args:
        name: of the model; "" takes that of its folder. repo: where it will lie, for the card.
        results: folders of eval run and eval generate.
        samples: folder that `speechscale generate` wrote; None takes those of the study.
        tokenizer, vocoder: where the model's folder does not know its own. dtype: cast the weights.
    """

    terms: Terms = field(default_factory=Terms)
    name: str = ""
    repo: str = ""
    results: tuple[Path, ...] = ()
    samples: Path | None = None
    tokenizer: Path | None = None
    vocoder: Path | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was made. notes: what a publisher should know."""

    folder: Path
    facts: ModelFacts
    files: tuple[BundleFile, ...]
    notes: tuple[str, ...]


def publish_model(run: Path, out: Path, wanted: Wanted | None = None) -> Published:
    """Write the folder; nothing is sent anywhere.

    Example: publish_model(Path("runs/quick/steps/run/loss/interleaved-0.16M-2e11-s0"), Path("mine"))

    Raises:
        DataError: no model there, results of other weights, a card the hub would refuse, `out` exists. Nothing is left
            behind then.
    """
    wanted = wanted or Wanted()
    run = _with_record(Path(run))
    if wanted.repo:
        check_repo(wanted.repo)
    located = locate(run, tokenizer=wanted.tokenizer, vocoder=wanted.vocoder)
    facts = _facts(run, located, wanted)
    with new_folder(Path(out)) as draft:
        made = export_stock(
            located.folder,
            draft / "bundle",
            speech_tokenizer=located.speech_tokenizer,
            vocoder=located.vocoder,
            dtype=wanted.dtype,
            units_per_second=located.units_per_second,
        )
        for path in sorted((draft / "bundle").iterdir()):
            path.rename(draft / path.name)
        (draft / "bundle").rmdir()
        samples, left = _samples(run, located, wanted)
        facts = _finished(facts, made, copy_samples(samples, draft))
        (draft / CARD).write_text(model_card(facts), encoding="utf-8")
        write_sums(draft)
    notes = [*made.notes, *left]
    if not facts.terms.license:
        notes.append("no license was named (--license): the card says so, and it cannot be pushed")
    return Published(folder=Path(out), facts=facts, files=tuple(verify_bundle(Path(out))), notes=tuple(notes))


def _with_record(run: Path) -> Path:
    """A study's run, if its model/ was named."""
    record = read_record(run.resolve().parent) if run.name == "model" else None
    return run.resolve().parent if record is not None and "row" in record["results"] else run


def _facts(run: Path, located: Located, wanted: Wanted) -> ModelFacts:
    record = read_record(run)
    job = next((folder for folder in (run, run.parent) if (folder / JOB).is_file()), None)
    if record is not None and "row" in record["results"]:
        facts = study_facts(run, located, wanted.terms)
    elif job is not None:
        facts = job_facts(job, located, wanted.terms)
    else:
        facts = _bare_facts(located, wanted.terms)
    found = read_results_folders(wanted.results, located.folder)
    return replace(
        facts,
        name=wanted.name or facts.name,
        repo=wanted.repo,
        metrics=tuple(dict.fromkeys((*facts.metrics, *found.metrics))),
        protocols=tuple(sorted({*facts.protocols, *found.protocols})),
        generation=found.generation,
    )


def _bare_facts(located: Located, terms: Terms) -> ModelFacts:
    """Of a model without any record of its training."""
    vocabulary, shape = located.load_vocabulary(), shape_of_model(located.folder)
    return ModelFacts(
        name=located.name,
        origin="No record of a study's run or of a training job lies beside it.",
        architecture=shape.architecture,
        family=shape.family,
        dtype="",
        params_total=shape.params_total,
        params_non_embedding=None,
        context_tokens=shape.context,
        arm="",
        units=unit_facts(located, vocabulary),
        ids=id_facts(vocabulary),
        start=_imported_start(located.folder),
        terms=terms,
        languages=(),
        data=(),
        recipe=(),
        compute=ComputeFacts(flops=()),
    )


def _imported_start(folder: Path) -> StartFacts:
    """Where an imported checkpoint came from."""
    path = folder / "import.json"
    if not path.is_file():
        return StartFacts(kind="not recorded")
    record = read_json(path, "record of the import", "import it again")
    source: Mapping[str, Any] = record.get("source", {})
    name, commit = str(source.get("name") or ""), source.get("commit")
    return StartFacts(
        kind=f"imported from a checkpoint of layout {record.get('layout', 'not recorded')}",
        base=name,
        hub_base=name if commit and "/" in name else None,
        revision=str(commit or ""),
    )


def _samples(run: Path, located: Located, wanted: Wanted) -> tuple[Sequence[tuple[Path, SampleFacts]], tuple[str, ...]]:
    """Samples that may go along, and what was left out."""
    if wanted.samples is None:
        return study_samples(run)
    made = generated_samples(Path(wanted.samples), located.folder)
    more = (f"{len(made) - MOST} more samples were left out; {MOST} go along",) if len(made) > MOST else ()
    return made[:MOST], more


def _finished(facts: ModelFacts, made: Exported, samples: tuple[SampleFacts, ...]) -> ModelFacts:
    cast = next((note for note in made.notes if "cast" in note), "")
    dtype = ", ".join(made.dtypes) + (f" ({cast})" if cast else "")
    scored = "Every loss and score of this card was measured before its weights were cast to another type."
    notes = (*facts.notes, scored) if cast and (facts.losses or facts.metrics or facts.generation) else facts.notes
    return replace(facts, dtype=dtype, samples=samples, notes=notes)
