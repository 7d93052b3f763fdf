"""Facts of a run of a study, from its record, the records of its inputs, and study.json.

Enters: the folder of a run step. Leaves: `ModelFacts` without samples and outside results. The one decision worth
knowing: only records are read (and, for hours by licence, the units they name); what a record does not hold stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechscale.evals.results import RESULTS
from speechscale.files import read_json
from speechscale.publish.eval_facts import metric_facts, protocol_lines
from speechscale.publish.model_parts import hub_name, id_facts, shape_of_model, unit_facts
from speechscale.publish.recipe_lines import recipe_lines
from speechscale.publish.study_data import opening_texts, study_data
from speechscale.publish.study_records import StudyRecords, require_unchanged
from speechscale.report.card_facts import (
    ComputeFacts,
    Lines,
    LossFacts,
    ModelFacts,
    StartFacts,
    Terms,
)
from speechscale.report.cards import CONVENTIONS, code_span, hours
from speechscale.report.numbers import short_flops
from speechscale.study.located import Located
from speechscale.study.recipes import MARKER
from speechscale.study.steps import read_record

VERSIONS = ("speechscale", "torch", "transformers", "python")
LOSSES = (
    ("loss_speech_final", "speech", "per unit"),
    ("loss_speech_per_second", "speech", "per second"),
    ("loss_speech_per_word", "speech", "per spoken word"),
    ("loss_text_final", "text", "per token"),
    ("loss_text_per_word", "text", "per written word"),
    ("loss_interleaved_final", "interleaved documents", "per token"),
)


def study_facts(run: Path, located: Located, terms: Terms) -> ModelFacts:
    """Collect everything that is known of a run of a study.

    Raises:
        DataError: no record there, or files of the model that cannot be read.
    """
    records = StudyRecords.of(run)
    record, config, row = records.own, records.own["config"], records.own["results"]["row"]
    study = _study(records.root)
    for name in record["files"]:
        if name.startswith("model/"):
            require_unchanged(run, record, name)
    vocabulary, shape = located.load_vocabulary(), shape_of_model(located.folder)
    data = study_data(records)
    metrics, protocols = _scores(run, record)
    return ModelFacts(
        name=located.name,
        origin=_origin(study, config),
        question=str(study.get("question", "")),
        architecture=shape.architecture,
        family=shape.family,
        dtype="",
        params_total=row["params_total"],
        params_non_embedding=row["params_non_embedding"],
        context_tokens=shape.context,
        arm=config["arm"],
        units=unit_facts(located, vocabulary, supervised=config["supervised_units"]),
        ids=id_facts(vocabulary, opening_texts(records)),
        start=_start(records),
        terms=terms,
        languages=tuple(sorted({code for source in data for code in source.languages})),
        data=data,
        recipe=_recipe(config, record, row),
        compute=_compute(records),
        losses=_losses(row),
        metrics=metrics,
        protocols=protocols,
        code=_code(record),
        tokens_seen=row["tokens_seen"],
        rate_at_edge=bool(row.get("learning_rate_at_edge")),
        seed=config["seed"],
    )


def _study(root: Path) -> dict[str, Any]:
    path = root.parent / MARKER
    if not path.is_file():
        return {}
    return dict(read_json(path, "study", "run the study again").get("study", {}))


def _origin(study: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    name = f" of the study `{code_span(study['name'])}`" if study.get("name") else " of a study"
    arm, part, size = (code_span(config[key]) for key in ("arm", "part", "size"))
    return f"It is the arm `{arm}` in part `{part}`{name}, at size `{size}`."


def _scores(run: Path, record: Mapping[str, Any]) -> tuple[Any, Lines]:
    if not (run / RESULTS).is_file():
        return (), ()
    require_unchanged(run, record, RESULTS)
    saved = read_json(run / RESULTS, "evaluation results", "run the study again")
    return metric_facts(saved["metrics"], saved["benchmarks"]), protocol_lines(saved["protocols"])


def _start(records: StudyRecords) -> StartFacts:
    config, results = records.own["config"], records.own["results"]
    if config["start"] == "scratch":
        return StartFacts(kind="scratch")
    if config.get("pretrained"):
        name = str(config["pretrained"])
        hub = hub_name(name, records.root)
        base = hub or Path(name).name
        return StartFacts(kind=config["start"], base=base, hub_base=hub)
    step = results.get("text_lm")
    made = records.inputs.get(step or "", {}).get("results", {})
    details = []
    if made:
        details.append(
            (
                "that TextLM",
                f"{made['tokens_seen']:,} tokens of text, {hours(made['text_epochs'])} passes, "
                f"{short_flops(made['flops_exact'])} FLOPs, {made['loss_text']:.3f} nats per token on test",
            )
        )
    return StartFacts(kind=config["start"], base="a TextLM of the same study", details=tuple(details))


def _recipe(config: Mapping[str, Any], record: Mapping[str, Any], row: Mapping[str, Any]) -> Lines:
    train = dict(config["train"])
    if config["start"] == "scratch":
        train.pop("new_rows", None)
    return (
        ("arm", config["arm"]),
        *recipe_lines(
            train,
            mixture=config["mixture"],
            interleave=config["interleave"],
            learning_rate=row["learning_rate"],
            precision=record["results"].get("precision"),
            tokens=row["tokens_seen"],
            steps=row["steps"],
            seed=config["seed"],
            budget_flops=row["budget_flops"],
            passes={"speech": row.get("speech_epochs"), "text": row.get("text_epochs") or None},
        ),
    )


def _losses(row: Mapping[str, Any]) -> tuple[LossFacts, ...]:
    return tuple(
        LossFacts(
            what=what,
            unit=unit,
            value=float(row[key]),
            se=row.get("loss_speech_se") if key == "loss_speech_final" else None,
        )
        for key, what, unit in LOSSES
        if row.get(key) is not None
    )


def _compute(records: StudyRecords) -> ComputeFacts:
    record, row = records.own, records.own["results"]["row"]
    return ComputeFacts(
        flops=tuple((name, row[name]) for name in CONVENTIONS if row.get(name) is not None),
        text_lm_flops=row.get("flops_text_lm_exact") or None,
        text_lm_counted=not record["config"].get("pretrained"),
        sweep=_sweep(records, row),
        seconds=record.get("seconds"),
        cpu_seconds=record.get("cpu_seconds"),
        machine=record.get("machine"),
        covers="training and scoring of this run",
    )


def _sweep(records: StudyRecords, row: Mapping[str, Any]) -> tuple[int, float] | None:
    """Runs of the sweep of this arm and size, without this one, and their FLOPs."""
    flops = []
    for folder in sorted((records.root / "run" / row["part"]).iterdir()):
        record = read_record(folder)
        if record is None or record["name"] == records.own["name"]:
            continue
        other = record["results"]["row"]
        if other["sweep"] and (other["arm"], other["size"]) == (row["arm"], row["size"]):
            flops.append(other.get("flops_exact_spent") or other["flops_exact"])
    return (len(flops), float(sum(flops))) if flops else None


def _code(record: Mapping[str, Any]) -> Lines:
    versions = record.get("versions", {})
    code = ", ".join(f"{name} {versions[name]}" for name in VERSIONS if name in versions)
    lines = (
        ("code", code),
        ("git commit", _commit(record.get("git_commit"))),
        ("finished", str(record.get("finished_at") or "")),
    )
    return tuple((label, value) for label, value in lines if value)


def _commit(commit: Any) -> str:
    if not commit:
        return "not recorded"
    return f"{commit[:-1]}, with changes that were not committed" if str(commit).endswith("+") else str(commit)
