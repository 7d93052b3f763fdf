"""Carry a preference tuning out: an SLM, pairs, the folder that is left.

Enters: a `TrainJob` with [preference]. Leaves in the folder: job.json, metrics.jsonl, skips.jsonl, the reference's
log-probabilities, checkpoints/, model/ and, last, result.json.
The one decision worth knowing: the vocabulary is the model's own; pairs are read with it or skipped with a reason.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json, write_json
from speechscale.model.folders import load_model
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.adapt import Adaptation, adapt
from speechscale.train.job import TrainJob
from speechscale.train.parallel import Group
from speechscale.train.preference import PreferenceCheck, PreferenceHooks, PreferenceResult, tune
from speechscale.train.preference_data import ReadPairs, read_pairs
from speechscale.train.preference_step import PreferenceReport
from speechscale.train.run import Options
from speechscale.train.run_folder import RESULT, MakeSinks, Opened, claim, open_run, save_folder
from speechscale.train.stopping import StopRequest


def run_preference(
    job: TrainJob,
    folder: Path,
    group: Group,
    options: Options,
    *,
    stop: StopRequest | None = None,
    sinks: MakeSinks = list,
) -> dict[str, Any]:
    """Tune to the end, or go on with a tuning. Called by all processes; returns and raises as `run_job`."""
    wanted = job.preference
    if wanted is None:
        raise DataError("this job has no [preference]; run it as a training")
    vocabulary = Vocabulary.load(Path(job.model.path))
    recipe = {"job": job.model_dump(mode="json"), "vocabulary": vocabulary.fingerprint}
    claim(recipe, folder, group, fresh=options.fresh)
    if (folder / RESULT).is_file():
        return read_json(folder / RESULT, "result", "delete it to run again")
    skips = folder / "skips.jsonl" if group.leads else None
    pairs = read_pairs(wanted.pairs, vocabulary, wanted.rules, skips_to=skips)
    held_out = read_pairs(wanted.validation, vocabulary, wanted.rules) if wanted.validation else None
    model = adapt(load_model(job.model.path), Adaptation(**job.adapt.model_dump()), job.model.seed)
    with open_run(folder, group, keep_last=options.keep_last, sinks=sinks) as opened:
        if opened.log is not None:
            opened.log.start({"config": recipe, "resumed_from": opened.start_step})
        result = tune(
            model.to(group.device),
            pairs.pairs,
            wanted.config,
            vocabulary=vocabulary,
            validation=held_out.pairs if held_out else (),
            runtime=options.runtime,
            hooks=_hooks(opened, wanted.config.epochs * len(pairs.pairs), stop or StopRequest()),
            group=group,
            checkpoints=opened.saves,
            start=opened.start,
            reference_file=folder / "reference.safetensors",
        )
        if not result.interrupted:
            save_folder(model, vocabulary, folder / "model", group)
        record = _record(result, pairs)
        if opened.log is not None:
            opened.log.stop({"reason": result.stopped or "all pairs seen", "step": result.steps, **_spent(result)})
    if group.leads and not result.interrupted:
        write_json(folder / RESULT, record)
    return record


def _hooks(opened: Opened, total: int, stop: StopRequest) -> PreferenceHooks:
    log = opened.log

    def on_step(report: PreferenceReport) -> None:
        if log is not None:
            log.step({**asdict(report), "pairs_total": total})
        opened.tell_notes()

    def on_check(model: Any, check: PreferenceCheck) -> None:
        if log is not None:
            errors = {f"{name}_se": value for name, value in check.se.items() if value is not None}
            place = {"step": check.step, "tokens_seen": check.tokens_seen, "pairs_seen": check.pairs_seen}
            log.check({**place, "losses": {"held_out": {**check.mean, **errors}}})

    return PreferenceHooks(on_step=on_step, on_check=on_check, on_save=opened.log_save, stop=stop)


def _spent(result: PreferenceResult) -> dict[str, Any]:
    return {"tokens_seen": result.tokens_seen, "pairs_seen": result.pairs_seen, "seconds": result.seconds}


def _record(result: PreferenceResult, pairs: ReadPairs) -> dict[str, Any]:
    """What result.json holds: held-out numbers before and after, with standard errors over pairs."""
    ends = {"before": result.checks[0], "after": result.checks[-1]} if result.checks else {}
    return {
        "stopped": result.stopped,
        "interrupted": result.interrupted,
        "steps": result.steps,
        "precision": result.precision,
        "pairs_read": pairs.read,
        "pairs_used": len(pairs.pairs),
        "held_out": {name: {"mean": check.mean, "se": check.se} for name, check in ends.items()},
        **_spent(result),
    }
