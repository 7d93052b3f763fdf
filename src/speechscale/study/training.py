"""The steps that train and score: one run of the grid, a TextLM, a TextLM's own scores.

Enters: a step's config, token stores, TextLMs, items. Leaves: a model folder, per-item scores, and the row of runs.csv.
The one decision worth knowing: the budget becomes tokens here, with the vocabulary the run really has, and compute is
written down under every convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.model.flops import flops_per_token, tokens_for_budget
from speechscale.model.sizes import get_size, params
from speechscale.model.slm import drop_text, extend, load_model, new_model, save_model
from speechscale.study.scoring import evaluate
from speechscale.study.spec import Evals, Interleave, Train
from speechscale.study.steps import read_record
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.packing import Batch
from speechscale.tokens.sources import StoreSource, pack_store
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.loop import TrainConfig, TrainResult, train
from speechscale.train.parallel import restore_local

VALIDATION_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Token stores of the three splits under one vocabulary."""

    vocabulary: Vocabulary
    train: TokenStore
    select: TokenStore
    test: TokenStore

    @classmethod
    def open(cls, folder: Path, vocabulary: str) -> Data:
        """Open the stores of a "tokens" or "text" step under the vocabulary called so."""
        ids = Vocabulary.load(folder / vocabulary)
        stores = {split: TokenStore.open(folder / split, ids) for split in ("train", "select", "test")}
        return cls(vocabulary=ids, **stores)

    def packed(self, split: str, stream: str, context: int, interleave: InterleaveConfig) -> list[Batch]:
        """Every document of a split once, as batches; empty when the split has none of this stream."""
        store: TokenStore = getattr(self, split)
        if not store.documents(stream, interleave):
            return []
        return pack_store(store, [stream], context, interleave=interleave, batch_rows=VALIDATION_ROWS)


def train_config(section: Train, *, tokens: int, rate: float, select_on: str) -> TrainConfig:
    """The loop's config from the study's section and what this run works out."""
    return TrainConfig(
        tokens=tokens,
        batch_rows=section.batch_rows,
        context=section.context,
        learning_rate=rate,
        final_lr_fraction=section.final_lr_fraction,
        warmup_fraction=section.warmup_fraction,
        weight_decay=section.weight_decay,
        betas=section.betas,
        clip_norm=section.clip_norm,
        precision=section.precision,
        schedule=section.schedule,
        checks=section.checks,
        select_on="text" if select_on == "text" else "speech",
    )


def train_text_lm(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train a TextLM on the text that is read, and write its folder."""
    section, size = Train.model_validate(config["train"]), get_size(config["size"])
    (folder,) = inputs.values()
    data = Data.open(folder, "vocabulary")
    per_token = flops_per_token(size, data.vocabulary.size, section.context)
    tokens = config["tokens"]
    model = new_model(size, data.vocabulary.size, section.context, config["seed"])
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


def best_of(inputs: Mapping[str, Path], prefix: str) -> tuple[str, Path, dict[str, Any]]:
    """Among the inputs below `prefix` the record with the lowest selection loss: (name, folder, results)."""
    found = []
    for name, path in sorted(inputs.items()):
        record = read_record(path) if name.startswith(prefix) else None
        if record is not None and record["results"].get("loss_select") is not None:
            found.append((record["results"]["loss_select"], name, path, record["results"]))
    if not found:
        raise DataError(f"every candidate below '{prefix}' diverged; lower its learning_rates")
    _, name, path, results = min(found, key=lambda entry: entry[:2])
    return name, path, results


def score_text_lm(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Score the chosen TextLM of one size text->text: what the warm arms start from."""
    name, folder, _ = best_of(inputs, "text_lm/")
    evals = Evals.model_validate(config["evals"]).model_copy(update={"directions": ("tt",)})
    model = load_model(folder / "model")
    scores = _score(model, Vocabulary.load(folder / "model"), evals, inputs, config["context"], out)
    return {"text_lm": name, "metrics": scores["metrics"], "items_dropped": scores["items_dropped"]}


def _score(
    model: Any, vocabulary: Vocabulary, evals: Evals, inputs: Mapping[str, Path], context: int, out: Path
) -> dict[str, Any]:
    (items,) = (path for name, path in inputs.items() if name.startswith("items/"))
    (units,) = (path for name, path in inputs.items() if name.startswith("item-units/"))
    return evaluate(model, vocabulary, evals, items_folder=items, units_folder=units, context=context, out=out)


def train_run(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train and score one run of the grid; a diverged run is recorded as such and stops nothing."""
    section, size = Train.model_validate(config["train"]), get_size(config["size"])
    textual = config["vocabulary"] == "text"
    (folder,) = (path for name, path in inputs.items() if name.startswith(("tokens/", "text/")))
    data = Data.open(folder, "vocabulary" if textual else config["vocabulary"])
    interleave = Interleave.model_validate(config["interleave"]).config
    per_token = flops_per_token(size, data.vocabulary.size, section.context)
    tokens = tokens_for_budget(config["budget"], per_token.of(config["flops"]))
    rate, at_edge = _learning_rate(config, inputs)
    model, start = _start(config, data, size, section, inputs)
    sampler = MixtureSampler.of_store(
        data.train,
        config["mixture"],
        section.context,
        config["seed"],
        interleave,
        pack=section.pack,
        max_epochs=config["max_epochs"],
        total_targets=tokens,
    )
    sampler.require(tokens)
    main = "text" if textual else "speech"
    sets = {"select": ("select", main), "test": ("test", main)}
    sets |= {s: ("test", s) for s in ("text", "interleaved") if not textual and data.test.documents(s, interleave)}
    validation = {k: packed for k, (s, t) in sets.items() if (packed := data.packed(s, t, section.context, interleave))}
    row: dict[str, Any] = {
        **{
            key: config[key]
            for key in ("part", "units", "oracle_units", "supervised_units", "arm", "size", "seed", "sweep")
        },
        "params_total": params(size, data.vocabulary.size).total,
        "params_non_embedding": params(size, data.vocabulary.size).non_embedding,
        "budget_flops": config["budget"],
        "flops_6nd_total": tokens * per_token.flops_6nd_total,
        "flops_6nd_non_embedding": tokens * per_token.flops_6nd_non_embedding,
        "flops_exact": tokens * per_token.flops_exact,
        "flops_text_lm_exact": start["flops_text_lm_exact"],
        "learning_rate": rate,
        "learning_rate_at_edge": at_edge,
    }
    try:
        result = train(
            model,
            sampler.batches(section.batch_rows),
            train_config(section, tokens=tokens, rate=rate, select_on=main),
            modality=data.vocabulary.modality_table(),
            units=data.vocabulary.units_per_id(),
            validation=validation,
        )
    except FloatingPointError as error:
        return {"row": row, "trajectory": [], "diverged": str(error), "note": f"DIVERGED: {error}"}
    row |= _losses(result, main) | _counts(result, sampler, data.train.counts.get("units", 0))
    save_model(model, out / "model")
    data.vocabulary.save(out / "model")
    metrics: list[Any] = []
    if config["evals"] is not None:
        evals = Evals.model_validate(config["evals"])
        scores = _score(model, data.vocabulary, evals, inputs, section.context, out)
        row |= scores["columns"]
        metrics = scores["metrics"]
    trajectory = [
        {"tokens_seen": c.tokens_seen, "loss": getattr(c.losses["select"], main)} for c in result.checks if c.losses
    ]
    return {
        "row": row,
        "loss_select": row["loss_select"],
        "learning_rate": rate,
        "trajectory": trajectory,
        "metrics": metrics,
        "precision": result.precision,
        "text_lm": start["text_lm"],
        "step_losses": [round(report.loss, 5) for report in result.history[:: max(1, len(result.history) // 50)]],
        "note": f"{main} loss {getattr(result.final['test'], main):.3f}",
    }


def _learning_rate(config: Mapping[str, Any], inputs: Mapping[str, Path]) -> tuple[float, bool]:
    """The run's rate, and whether it is the lowest or highest of those its sweep tried."""
    rates = config["learning_rates"]
    if config["sweep"]:
        return rates[0], False  # the table of runs decides about the edge, when all rates are known
    _, _, results = best_of(inputs, "run/")
    rate = results["learning_rate"]
    return rate, rate in (min(rates), max(rates))


def _start(
    config: Mapping[str, Any], data: Data, size: Any, section: Train, inputs: Mapping[str, Path]
) -> tuple[Any, dict[str, Any]]:
    """The model before its first step, and what its TextLM cost."""
    ids = data.vocabulary.size
    if config["start"] == "scratch":
        model = new_model(size, ids, section.context, config["seed"])
        return model, {"flops_text_lm_exact": 0.0, "text_lm": ""}
    if config["pretrained"]:
        text_lm, cost, name = load_model(config["pretrained"]), config["pretrained_flops"], config["pretrained"]
    else:
        name, folder, results = best_of(inputs, "text_lm/")
        text_lm, cost = load_model(folder / "model"), results["flops_exact"]
    if config["vocabulary"].startswith("textless"):
        model = drop_text(text_lm, ids, config["seed"])
    else:
        model = extend(text_lm, data.vocabulary.text_size, ids, config["seed"], section.new_rows)
    return model, {"flops_text_lm_exact": cost, "text_lm": name}


def _losses(result: TrainResult, main: str) -> dict[str, Any]:
    final, best = result.final, result.best
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
    return row


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
