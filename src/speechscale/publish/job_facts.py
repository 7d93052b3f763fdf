"""Facts of a training job, from job.json, result.json, metrics.jsonl and the token stores it read.

Enters: the folder of `speechscale train`. Leaves: `ModelFacts` without samples and outside results. The one decision
worth knowing: a job knows its stores and not what they were made of, so licences are "not recorded" unless a store's
meta.json names its sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.publish.model_parts import beside, hub_name, id_facts, shape_of_model, unit_facts
from speechscale.publish.recipe_lines import recipe_lines
from speechscale.report.card_facts import ComputeFacts, DataFacts, Lines, LossFacts, ModelFacts, StartFacts, Terms
from speechscale.report.cards import CONVENTIONS
from speechscale.report.numbers import short_count
from speechscale.study.located import Located
from speechscale.tokens.interleave_config import InterleaveConfig
from speechscale.train.logs import METRICS, read_events
from speechscale.train.run_folder import JOB, RESULT

AGAIN = "let the training end, or give another folder"
UNITS = (
    ("speech_per_unit", "speech", "per unit"),
    ("speech_per_second", "speech", "per second"),
    ("speech_per_word", "speech", "per spoken word"),
    ("text_per_token", "text", "per token"),
    ("text_per_word", "text", "per written word"),
)
ARMS = {"speech": "textless", "text": "text"}
"""By the only stream of a mixture; anything else is interleaved."""


def job_facts(run: Path, located: Located, terms: Terms) -> ModelFacts:
    """Collect everything that is known of a training job.

    Args:
        run: the folder with job.json. located: the model in it, `model/` or `best/`.

    Raises:
        DataError: it has not ended, or its files cannot be read.
    """
    job = read_json(run / JOB, "job", AGAIN)
    result = read_json(run / RESULT, "result", AGAIN)
    settings: dict[str, Any] = job["job"]
    if settings.get("data") is None and settings.get("preference") is None:
        raise DataError(f"{run / JOB}: neither data nor preference; give the folder of a training")
    start_event = _start_event(run)
    vocabulary, shape = located.load_vocabulary(), shape_of_model(located.folder)
    data = settings.get("data") or {}
    mixture = _mixture(data)
    best = located.folder.name == "best"
    units = unit_facts(located, vocabulary)
    sources = tuple(_sources(data, run))
    return ModelFacts(
        name=located.name,
        origin="It is the result of one training (`speechscale train`)"
        + (", at its best checkpoint." if best else "."),
        architecture=shape.architecture,
        family=shape.family,
        dtype="",
        params_total=int(start_event.get("params_total") or shape.params_total),
        params_non_embedding=start_event.get("params_non_embedding"),
        context_tokens=shape.context,
        arm=ARMS.get("".join(mixture), "interleaved") if mixture else "preference tuned",
        units=units,
        ids=id_facts(vocabulary),
        start=_start(settings["model"], run),
        terms=terms,
        languages=(),
        data=sources,
        recipe=_recipe(settings, mixture, result),
        compute=_compute(result, start_event),
        losses=tuple(_losses(result, best=best)),
        code=_code(start_event),
        tokens_seen=result.get("best_tokens_seen" if best else "tokens_seen"),
        seed=data.get("seed"),
    )


def _start_event(run: Path) -> dict[str, Any]:
    if not (run / METRICS).is_file():
        return {}
    events = [event for event in read_events(run / METRICS) if event.get("event") == "start"]
    return dict(events[-1]) if events else {}


def _mixture(data: Mapping[str, Any]) -> dict[str, float]:
    """Share of the tokens by stream."""
    shares: dict[str, float] = {}
    for source in data.get("sources", {}).values():
        shares[source["stream"]] = shares.get(source["stream"], 0.0) + source["share"]
    return shares


def _start(model: Mapping[str, Any], run: Path) -> StartFacts:
    kind, path = model["start"], str(model.get("path") or "")
    if kind == "scratch":
        return StartFacts(kind=kind, details=(("shape", str(model.get("size") or "")),))
    hub = hub_name(path, run)
    return StartFacts(kind=kind, base=hub or Path(path).name, hub_base=hub, revision=str(model.get("revision") or ""))


def _recipe(settings: Mapping[str, Any], mixture: Mapping[str, float], result: Mapping[str, Any]) -> Lines:
    train = dict(settings.get("train") or {})
    if settings["model"]["start"] in ("warm", "textless-warm"):
        train["new_rows"] = settings["model"].get("new_rows")
    data = settings.get("data") or {}
    adapt = settings.get("adapt") or {}
    trains = adapt.get("trains", "all")
    lines = recipe_lines(
        train,
        mixture=mixture,
        interleave=asdict(InterleaveConfig(**(data.get("interleave") or {}))),
        learning_rate=train.get("learning_rate"),
        precision=result.get("precision"),
        tokens=result.get("tokens_seen"),
        steps=result.get("steps"),
        seed=data.get("seed"),
        budget_flops=train.get("flops"),
    )
    trained = () if trains == "all" else (("trained weights", f"{trains}, rank {adapt.get('rank')}"),)
    return (*lines, *trained, *_preference(settings.get("preference")))


def _preference(section: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for key, value in sorted((section or {}).items()):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            shown = Path(value).name if isinstance(value, str) and "/" in value else f"{value}"
            yield f"preference: {key.replace('_', ' ')}", shown


def _sources(data: Mapping[str, Any], run: Path) -> Iterator[DataFacts]:
    counted: dict[Path, str] = {}
    for name, source in data.get("sources", {}).items():
        place = beside(source.get("store") or source["rows"], run)
        meta = read_json(place / "meta.json", "token store", AGAIN) if (place / "meta.json").is_file() else {}
        counts = meta.get("counts") or {}
        stream = source["stream"]
        spoken = stream != "text"
        first = counted.setdefault(place.resolve(), name) if spoken else name
        frames, rate = counts.get("frames"), meta.get("frame_rate_hz")
        amount = [
            f"{short_count(counts[key])} {words}"
            for key, words in (("units", "units"), ("text_tokens", "tokens of text"), ("words", "words"))
            if counts.get(key) and (spoken or key == "text_tokens")
        ]
        yield DataFacts(
            what="text" if not spoken else "speech",
            name=f"{name} ({stream})",
            made=_made(place, meta),
            hours=frames / rate / 3600 if spoken and frames and rate and first == name else None,
            amount=", ".join(amount) if first == name else f"the store of '{first}' again",
        )


def _made(place: Path, meta: Mapping[str, Any]) -> str:
    sources = meta.get("sources") or []
    names = sorted({Path(str(s.get("path") or s.get("name"))).name for s in sources if isinstance(s, Mapping)})
    return f"token store '{place.name}'" + (f", made of {', '.join(names)}" if names else "")


def _losses(result: Mapping[str, Any], *, best: bool) -> Iterator[LossFacts]:
    for split, losses in sorted((result.get("losses_best" if best else "losses_final") or {}).items()):
        for key, what, unit in UNITS:
            if losses.get(key) is not None:
                se = losses.get("speech_se") if key == "speech_per_unit" else None
                yield LossFacts(what=what, unit=unit, value=float(losses[key]), se=se, split=split)


def _compute(result: Mapping[str, Any], start: Mapping[str, Any]) -> ComputeFacts:
    flops = result.get("flops") or {}
    world, device = start.get("world"), start.get("device")
    return ComputeFacts(
        flops=tuple((name, flops[name]) for name in CONVENTIONS if flops.get(name) is not None),
        seconds=result.get("seconds"),
        device_hours=result.get("gpu_hours"),
        devices=f"{world} x {device}" if world and device else None,
        covers="training alone",
    )


def _code(start: Mapping[str, Any]) -> Lines:
    versions = start.get("versions") or {}
    code = ", ".join(f"{name} {value}" for name, value in versions.items())
    return (("code", code), ("git commit", "not recorded")) if code else ()
