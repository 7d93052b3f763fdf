"""The steps that train and score: one run of the grid, a TextLM, a TextLM's own scores.

Enters: a step's config, token stores, TextLMs, items. Leaves: a model folder, per-item scores, and the row of runs.csv.
The one decision worth knowing: compute is written down under every convention, for the whole path from the first token;
what a branch itself cost stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechscale.model.flops import flops_per_token
from speechscale.model.sizes import get_size, params
from speechscale.model.slm import load_model, new_model, save_model
from speechscale.study.benchmarks import asked_of
from speechscale.study.preparing import Data, Setting, best_of, learning_rate, to_device, train_config
from speechscale.study.probes import Probes, study_probes
from speechscale.study.scoring import evaluate_sets
from speechscale.study.spec import Evals, Train
from speechscale.study.trunk import BranchPoint, branch_point, train_trunk
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.sources import StoreSource
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.loop import Hooks, TrainResult, train
from speechscale.train.losses import Rates
from speechscale.train.parallel import restore_local

__all__ = ["score_text_lm", "train_run", "train_text_lm", "train_trunk"]


def train_text_lm(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train a TextLM on the text that is read, and write its folder."""
    section, size = Train.model_validate(config["train"]), get_size(config["size"])
    (folder,) = inputs.values()
    data = Data.open(folder, "vocabulary")
    per_token = flops_per_token(size, data.vocabulary.size, section.context)
    tokens = config["tokens"]
    model = to_device(new_model(size, data.vocabulary.size, section.context, config["seed"]))
    source = StoreSource(data.train, "text", section.context, config["seed"], name="text_lm", pack=section.pack)
    sampler = MixtureSampler([source], {"text_lm": 1.0})
    result = train(
        model,
        sampler.batches(section.batch_rows),
        train_config(section, tokens=tokens, rate=config["learning_rate"], select_on="text"),
        modality=data.vocabulary.modality_table(),
        validation={s: data.packed(s, "text", section.context, InterleaveConfig()) for s in ("select", "test")},
    )
    restore_local(model, result.best_state)
    save_model(model, out / "model")
    data.vocabulary.save(out / "model")
    loss = result.best["test"].text
    return {
        "size": config["size"],
        "learning_rate": config["learning_rate"],
        "tokens_seen": tokens,
        "flops_exact": tokens * per_token.flops_exact,
        "text_epochs": sampler.stats().epochs_of("text"),
        "loss_text": loss,
        "loss_select": result.best["select"].text,
        "note": f"text loss {loss:.3f}",
    }


def score_text_lm(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Score the chosen TextLM of one size text->text: what the warm arms start from."""
    name, folder, _ = best_of(inputs, "text_lm/")
    evals = Evals.model_validate(config["evals"]).model_copy(update={"directions": ("tt",)})
    model = to_device(load_model(folder / "model"))
    scores = _score(model, Vocabulary.load(folder / "model"), evals, inputs, config["context"], out)
    return {"text_lm": name, "metrics": scores["metrics"], "items_dropped": scores["items_dropped"]}


def _score(
    model: Any, vocabulary: Vocabulary, evals: Evals, inputs: Mapping[str, Path], context: int, out: Path
) -> dict[str, Any]:
    return evaluate_sets(model, vocabulary, evals, inputs, context=context, out=out)


def _probe(setting: Setting, inputs: Mapping[str, Path]) -> Probes | None:
    """What is scored along a run; only runs that are scored at their end are."""
    if setting.config["evals"] is None:
        return None
    evals, context = Evals.model_validate(setting.config["evals"]), setting.section.context
    return study_probes(evals, setting.data.vocabulary, asked_of(evals, inputs), context=context)


def train_run(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train and score one run of the grid, or a branch; a diverged one is recorded as such and stops nothing."""
    setting = Setting.of(config, inputs)
    sampler = setting.sampler()
    trunk = next((path for name, path in inputs.items() if name.startswith("trunk/")), None)
    branch = None if trunk is None else branch_point(setting, trunk)
    rate, at_edge = learning_rate(config, inputs) if branch is None else _rate_of(branch)
    row = _described(setting, rate, at_edge)
    model, start = setting.start(inputs)
    row["flops_text_lm_exact"] = start["flops_text_lm_exact"]
    row |= _cost(setting, 0 if branch is None else branch.tokens, branched=branch is not None)
    if branch is not None and branch.diverged:
        return _diverged(row, f"its trunk: {branch.diverged}")
    begin, data = (None, None) if branch is None else (branch.start, branch.data)
    probe = _probe(setting, inputs)
    try:
        result = train(
            model,
            sampler.batches(setting.section.batch_rows, state=data),
            setting.train_config(rate),
            modality=setting.data.vocabulary.modality_table(),
            units=setting.data.vocabulary.units_per_id(),
            validation=setting.validation(),
            hooks=Hooks(probe=probe),
            checkpoints=None if branch is None else branch.checkpoints(),
            start=begin,
        )
    except FloatingPointError as error:
        return _diverged(row, str(error))
    row |= _losses(result, setting) | _counts(result, sampler, setting.data.train.counts.get("units", 0))
    save_model(model, out / "model")
    setting.data.vocabulary.save(out / "model")
    metrics: list[Any] = []
    if config["evals"] is not None:
        evals = Evals.model_validate(config["evals"])
        scores = _score(model, setting.data.vocabulary, evals, inputs, setting.section.context, out)
        row |= scores["columns"]
        metrics = scores["metrics"]
    main = setting.main
    trajectory = [
        {
            "tokens_seen": c.tokens_seen,
            "loss": getattr(c.losses["select"], main),
            **({"probes": c.probes} if c.probes else {}),
        }
        for c in result.checks
        if c.losses
    ]
    return {
        "row": row,
        "loss_select": row["loss_select"],
        "learning_rate": rate,
        "trajectory": trajectory,
        "metrics": metrics,
        **({} if probe is None else {"probe_seconds": result.probe_seconds, "probe_notes": probe.notes()}),
        "precision": result.precision,
        "text_lm": start["text_lm"],
        "step_losses": [round(report.loss, 5) for report in result.history[:: max(1, len(result.history) // 50)]],
        "note": f"{main} loss {getattr(result.final['test'], main):.3f}",
    }


def _rate_of(branch: BranchPoint) -> tuple[float, bool]:
    return branch.learning_rate, branch.learning_rate_at_edge


def _diverged(row: dict[str, Any], error: str) -> dict[str, Any]:
    return {"row": row, "trajectory": [], "diverged": error, "note": f"DIVERGED: {error}"}


def _described(setting: Setting, rate: float, at_edge: bool) -> dict[str, Any]:
    """What a row says before any training: who, how large, how much compute."""
    config, tokens, per_token = setting.config, setting.tokens, setting.per_token
    count = params(setting.size, setting.data.vocabulary.size)
    budget = config["point"] if config["axis"] == "budgets_flops" else tokens * per_token.of(config["flops"])
    keys = ("part", "units", "oracle_units", "supervised_units", "arm", "size", "seed", "sweep")
    return {
        **{key: config[key] for key in keys},
        "family": setting.size.family,
        "params_total": count.total,
        "params_non_embedding": count.non_embedding,
        "budget_flops": budget,
        **asdict(per_token.times(tokens)),
        "schedule": setting.section.schedule,
        "learning_rate": rate,
        "learning_rate_at_edge": at_edge,
    }


def _cost(setting: Setting, begun: int, *, branched: bool) -> dict[str, Any]:
    """What the run itself cost; without the trunk if it is a branch."""
    spent = (setting.tokens - begun) * setting.per_token.flops_exact
    return {"branch_from_tokens": begun if branched else None, "flops_exact_spent": spent}


def _losses(result: TrainResult, setting: Setting) -> dict[str, Any]:
    final, best, main = result.final, result.best, setting.main
    row: dict[str, Any] = {
        f"loss_{main}_final": getattr(final["test"], main),
        f"loss_{main}_best": getattr(best["test"], main),
        f"loss_{main}_select": getattr(best["select"], main),
        "loss_select": getattr(final["select"], main),
        "best_tokens_seen": result.best_tokens_seen,
    }
    if main == "speech":
        row["loss_speech_se"] = final["test"].speech_se
    if "text" in final:
        row["loss_text_final"] = final["text"].text
    if "interleaved" in final:
        row["loss_interleaved_final"] = final["interleaved"].mean
    rates = Rates.of(setting.data.test)
    per = final["test"].per(rates) | {"text_per_word": final.get("text", final["test"]).per(rates)["text_per_word"]}
    names = ("speech_per_second", "speech_per_word", "text_per_word")
    return row | {f"loss_{name}": per[name] for name in names if per[name] is not None}


def _counts(result: TrainResult, sampler: MixtureSampler, speech_units: int) -> dict[str, Any]:
    """Counts of the delivered rows; the last batch, which the budget may cut, is in them whole."""
    stats = sampler.stats()
    return {
        "tokens_seen": result.tokens_seen,
        "tokens_unique": min(result.tokens_seen, sum(stats.by_stream("targets_unique").values())),
        "speech_units_seen": stats.speech_units_seen,
        "speech_units_unique": stats.speech_units_unique,
        "speech_hours_unique": stats.speech_hours_unique,
        "speech_epochs": stats.speech_units_seen / speech_units if speech_units else None,
        "text_epochs": stats.epochs_of("text"),
        "steps": result.steps,
    }
