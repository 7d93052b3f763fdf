"""All metrics of generated samples, in one results.json.

Enters: samples, what was heard in them, optionally a language model and a judge. Leaves: OUT/samples.jsonl and
OUT/results.json: each metric with interval and n, beside the same of the recordings. The one decision worth knowing:
one span ("whole": prompt and continuation, as Slam and SIMS; or the continuation) holds for every metric on units,
texts and time, and stands in the stamp.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechscale import __version__
from speechscale.evals.generation.auto_bleu import Orders, corpus_auto_bleu
from speechscale.evals.generation.diversity import compare, diversity
from speechscale.evals.generation.error_rates import resynthesis_errors
from speechscale.evals.generation.estimates import REPLICATES, mean_of
from speechscale.evals.generation.listening import Heard
from speechscale.evals.generation.llm_judge import ChatJudge, Verdict
from speechscale.evals.generation.perplexity import Perplexity, Span, TextJudge, perplexity
from speechscale.evals.generation.samples import GenerateDirection, Sample
from speechscale.evals.generation.transcribe import Transcript
from speechscale.evals.intervals import LEVEL
from speechscale.files import complete_file, write_json
from speechscale.progress import Watch
from speechscale.skips import SkipLog
from speechscale.tokens.repetition import split_words

FORMAT, FORMAT_VERSION = "speechscale generation results", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is measured and how.

    Args:
        span: see `perplexity.perplexity`. order, orders: of Auto-BLEU.
        lm: for GenPPL; None: left out. judge: a language model that grades; None: left out.
        resynthesis: word and character error rates of the vocoder.
        language: of the texts, for the error rates.
    """

    direction: GenerateDirection
    span: Span = "whole"
    order: int = 2
    orders: Orders = "single"
    lm: TextJudge | None = None
    judge: ChatJudge | None = None
    resynthesis: bool = False
    language: str = "en"
    replicates: int = REPLICATES
    seed: int = 0

    @property
    def bootstrap(self) -> dict[str, Any]:
        return {"replicates": self.replicates, "seed": self.seed}

    @property
    def sound_is_whole(self) -> bool:
        """Whether times and units are those of prompt and continuation; behind a text there is no spoken prompt."""
        return self.span == "whole" and self.direction == "ss"


def write_generation(
    out: Path,
    samples: Sequence[Sample],
    heard: Sequence[Heard] | None,
    skips: SkipLog,
    how: Judged,
    *,
    recipe: dict[str, Any],
    asr: dict[str, Any] | None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Measure all, write samples.jsonl and, last, results.json; return its content.

    Args:
        heard: one per sample; None where nothing was recognized: metrics on units and time alone.
        asr: the recognizer's stamp.
    """
    rows: list[dict[str, Any]] = [asdict(sample) for sample in samples]
    metrics, reference = unit_metrics(samples, how)
    if heard is not None:
        texts, beside = _text_metrics(samples, heard, how, rows, watch)
        metrics |= texts
        reference |= beside
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "stamp": {
            "recipe": {key: value for key, value in recipe.items() if not key.startswith("format")},
            "span": how.span,
            "auto_bleu": {
                "order": how.order,
                "orders": how.orders,
                "overlapping": how.orders == "single",
                "words": "as written, punctuation apart",
            },
            "asr": asr,
            "lm": None if how.lm is None else how.lm.stamp(),
            "bootstrap": {**how.bootstrap, "level": LEVEL, "unit": "sample"},
            "versions": {name: version(name) for name in ("torch", "transformers")} | {"speechscale": __version__},
        },
        "counts": {
            "prompts": len(samples) + len(skips),
            "dropped": len(skips),
            "samples": len(samples),
            "ended_by_themselves": sum(sample.ended for sample in samples),
        },
        "metrics": metrics,
        "reference": reference,
    }
    with complete_file(out / "samples.jsonl") as draft, draft.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    write_json(out / "results.json", content)
    return content


def unit_metrics(samples: Sequence[Sample], how: Judged) -> tuple[dict[str, Any], dict[str, Any]]:
    """Diversity, Auto-BLEU of units, seconds and units per second; of the samples, and of the recordings."""
    if how.direction == "st":
        return {}, {}
    whole = how.sound_is_whole
    said = [(*s.prompt_units, *s.units) if whole else s.units for s in samples]
    real = [s.reference_units if whole else s.reference_rest_units for s in samples]
    real = [units for units, s in zip(real, samples, strict=True) if s.reference_s]
    seconds = [s.seconds if whole else s.continuation_s for s in samples]
    real_s = [s.reference_s if whole else s.reference_s - s.cut_s for s in samples if s.reference_s]
    spoken = [(units, s) for units, s in zip(said, seconds, strict=True) if s > 0]
    paired = [(units, s) for units, s in zip(real, real_s, strict=True) if units and s > 0]
    found: dict[str, Any] = {
        "diversity": diversity(said, **how.bootstrap).record(),
        "auto_bleu_units": corpus_auto_bleu(said, how.order, how.orders, **how.bootstrap).record(),
        "new_units": mean_of([float(len(s.units)) for s in samples], **how.bootstrap).record(),
    }
    if spoken:
        found["duration_s"] = compare([s for _, s in spoken], real_s, **how.bootstrap).record()
        rates = [[len(units) / s for units, s in side] for side in (spoken, paired)]
        found["units_per_s"] = compare(rates[0], rates[1], **how.bootstrap).record()
    beside: dict[str, Any] = {}
    if any(real):
        beside["diversity"] = diversity(real, **how.bootstrap).record()
        beside["auto_bleu_units"] = corpus_auto_bleu(real, how.order, how.orders, **how.bootstrap).record()
    return found, beside


def _text_metrics(
    samples: Sequence[Sample], heard: Sequence[Heard], how: Judged, rows: list[dict[str, Any]], watch: Watch | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    texts = [_of_span(one, how.span) for one in heard]
    prompts = [one.prompt.text if one.prompt is not None else "" for one in heard]
    bleu = corpus_auto_bleu([split_words(one.text) for one in texts], how.order, how.orders, **how.bootstrap)
    metrics: dict[str, Any] = {"transcripts": _counted(texts), "auto_bleu_words": bleu.record()}
    for row, one, value in zip(rows, heard, bleu.values, strict=True):
        row["heard"] = {name: text for name, text in asdict(one).items() if text is not None}
        row["auto_bleu_words"] = value
    if how.direction != "st":
        metrics |= _word_rates(samples, heard, how)
    if how.lm is not None:
        found = _perplexity(how.lm, texts, prompts, how)
        metrics["perplexity"] = found.record()
        for row, score in zip(rows, found.scores, strict=True):
            row["lm"] = asdict(score)
    if how.judge is not None:
        verdict = _judge(how.judge, samples, heard, prompts, how, watch)
        metrics["judge"] = verdict.record()
        for row, item in zip(rows, verdict.items, strict=True):
            row["judge"] = {"grade": item.grade, "problem": item.problem, "answer": item.answer}
    if how.resynthesis:
        metrics["resynthesis"] = _resynthesis(samples, heard, how)
    return metrics, _reference_texts(heard, how)


def _of_span(heard: Heard, span: Span) -> Transcript:
    text = heard.whole if span == "whole" else heard.continuation
    assert text is not None, "listen() made what the span needs"
    return text


def _counted(texts: Sequence[Transcript]) -> dict[str, Any]:
    empty = Counter(text.problem for text in texts if not text.text.strip())
    return {"n": len(texts), "empty": sum(empty.values()), "empty_because": dict(sorted(empty.items()))}


def _word_rates(samples: Sequence[Sample], heard: Sequence[Heard], how: Judged) -> dict[str, Any]:
    """Words per second of sound; a silent sample has 0, one without sound none."""
    rates, real = [], []
    for sample, one in zip(samples, heard, strict=True):
        text = one.whole if how.sound_is_whole else one.continuation
        seconds = sample.seconds if how.sound_is_whole else sample.continuation_s
        reference_s = sample.reference_s if how.span == "whole" else sample.reference_s - sample.cut_s
        if text is not None and seconds > 0:
            rates.append(len(text.text.split()) / seconds)
        if one.reference is not None and reference_s > 0:
            real.append(len(one.reference.text.split()) / reference_s)
    return {"words_per_s": compare(rates, real, **how.bootstrap).record()} if rates else {}


def _perplexity(lm: TextJudge, texts: Sequence[Transcript], prompts: Sequence[str], how: Judged) -> Perplexity:
    said = [text.text for text in texts]
    before = prompts if how.span == "continuation" else None
    return perplexity(lm, said, before, span=how.span, **how.bootstrap)


def _judge(
    judge: ChatJudge,
    samples: Sequence[Sample],
    heard: Sequence[Heard],
    prompts: Sequence[str],
    how: Judged,
    watch: Watch | None,
) -> Verdict:
    said = [one.continuation.text if one.continuation is not None else "" for one in heard]
    return judge.grade([s.id for s in samples], prompts, said, watch=watch, **how.bootstrap)


def _resynthesis(samples: Sequence[Sample], heard: Sequence[Heard], how: Judged) -> dict[str, Any]:
    rows = [
        (sample.id, sample.reference_text, one.recording.text, one.resynthesis.text)
        for sample, one in zip(samples, heard, strict=True)
        if one.recording is not None and one.resynthesis is not None
    ]
    ids, texts, recordings, again = ([row[column] for row in rows] for column in range(4))
    return resynthesis_errors(ids, texts, recordings, again, language=how.language, **how.bootstrap).record()


def _reference_texts(heard: Sequence[Heard], how: Judged) -> dict[str, Any]:
    """The same metrics of the recordings, as heard by the same recognizer: what could be reached at best."""
    pairs = [(one.reference, one.prompt) for one in heard if one.reference is not None]
    if not pairs:
        return {}
    texts = [text for text, _ in pairs]
    bleu = corpus_auto_bleu([split_words(text.text) for text in texts], how.order, how.orders, **how.bootstrap)
    found: dict[str, Any] = {"transcripts": _counted(texts), "auto_bleu_words": bleu.record()}
    if how.lm is not None:
        prompts = ["" if prompt is None else prompt.text for _, prompt in pairs]
        found["perplexity"] = _perplexity(how.lm, texts, prompts, how).record()
    return found
