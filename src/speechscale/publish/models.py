"""Make the folder of a model that travels: bundle, card, samples, checksums.

Enters: the folder of a study's run, a training job or a model. Leaves: a new folder, verified after it was written. The
one decision worth knowing: everything is made in a hidden folder beside it and moved into place whole, card and
checksums last, so that a folder with a card is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.model.interop_stock import new_folder
from speechscale.model.stock import Exported, export_stock
from speechscale.publish.bundle import CARD, BundleFile, verify_bundle, write_sums
from speechscale.publish.eval_facts import read_results_folders
from speechscale.publish.job_facts import job_facts
from speechscale.publish.model_parts import id_facts, shape_of_model, unit_facts
from speechscale.publish.samples import copy_samples, study_samples
from speechscale.publish.study_facts import study_facts
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
    run = Path(run)
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
        facts = _finished(facts, made, copy_samples(_samples(run, wanted), draft))
        (draft / CARD).write_text(model_card(facts), encoding="utf-8")
        write_sums(draft)
    notes = list(made.notes)
    if not facts.terms.license:
        notes.append("no license was named (--license): the card says so, and it cannot be pushed")
    return Published(folder=Path(out), facts=facts, files=tuple(verify_bundle(Path(out))), notes=tuple(notes))


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


def _samples(run: Path, wanted: Wanted) -> Sequence[tuple[Path, SampleFacts]]:
    if wanted.samples is not None:
        return list(_generated(Path(wanted.samples)))
    return study_samples(run)


def _generated(folder: Path) -> Sequence[tuple[Path, SampleFacts]]:
    """Samples that `speechscale generate` wrote: one line of samples.jsonl each, audio below the folder."""
    path = folder / "samples.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"samples {path}: cannot be read ({error}); give the folder of speechscale generate") from error
    found = []
    for row in rows:
        audio = str(row.get("audio") or "")
        place = (folder / audio).resolve()
        if not audio:
            continue
        if not place.is_relative_to(folder.resolve()) or not place.is_file():
            raise DataError(f"samples {path}: '{audio}' is no file below it; generate them again")
        prompt = row.get("prompt") or {}
        begun = str(prompt.get("text") or prompt.get("source") or "")
        group = f"Prompt {prompt.get('id', '')}: {Path(begun).name if prompt.get('kind') == 'speech' else begun}".strip(
            ": "
        )
        seconds = row.get("prompt_s")
        title = f"into {row.get('into', 'speech')}, sample {row.get('number', 0)}"
        if seconds:
            title += f" (the first {seconds:.1f} s are the prompt)"
        found.append((place, SampleFacts(group=group, title=title, text=str(row.get("text") or ""), path=place.name)))
    return found


def _finished(facts: ModelFacts, made: Exported, samples: tuple[SampleFacts, ...]) -> ModelFacts:
    cast = next((note for note in made.notes if "cast" in note), "")
    dtype = ", ".join(made.dtypes) + (f" ({cast})" if cast else "")
    return replace(facts, dtype=dtype, samples=samples)
