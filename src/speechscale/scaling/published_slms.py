"""Scores that others print, one row per number, with how far each can be trusted.

Enters: nothing (the table lies in the package). Leaves: `PublishedScore`s.
The one decision worth knowing: a number is handed out only under what it is. Two sBLIMP means, three recordings of
StoryCloze and numbers from memory exist under the same name in the literature; here they differ in `version`, `mean`
and `verified`, and what was not seen in print is left out unless it is asked for.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from speechscale.errors import DataError
from speechscale.settings import nearest

Verified = Literal["read", "quoted", "digest", "recall"]
Kind = Literal["model", "topline", "human", "prediction"]

VERIFIED: dict[Verified, str] = {
    "read": "read in the paper or repository named",
    "quoted": "another paper's number, as quoted by the paper named",
    "digest": "from somebody's summary; the paper was not read",
    "recall": "from memory; check it before use",
}
SEEN: tuple[Verified, ...] = ("read", "quoted")
MODELS: tuple[Kind, ...] = ("model",)
METRICS: dict[str, str] = {
    "sWUGGY": "known words only (ZeroSpeech's in-vocabulary), %",
    "sWUGGY all": "known and unknown words, %",
    "sBLIMP": "%; see MEANS",
    "BLiMP": "on written sentences, %",
    "sSC": "StoryCloze with the original wrong ending, %",
    "tSC": "Topic StoryCloze, a random story's ending, %",
    "GenPPL": "perplexity of transcribed continuations, lower is better; every paper has its own recipe",
    "Auto-BLEU": "repetition within continuations, lower is more diverse",
}
MEANS: dict[str, str] = {
    "macro": "voices averaged in each pair, mean over the 12 phenomena, labelled dev set (Cuervo & Marxer)",
    "pair": "the release's 'pair' column: by its code, mean over pairs, about 3 points below macro",
    "plain": "mean over all pairs alike (slamkit's code)",
    "": "not stated where the number was read",
}
VERSIONS: dict[str, str] = {
    "original": "one voice (FastSpeech2), as released with TWIST",
    "multi-speaker": "spoken by four Kokoro voices, as released with SIMS",
    "multi-speaker (GLM)": "spoken again by GLM-4-Voice's authors, several voices, not released",
    "text": "the written stories",
    "": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """One printed number.

    Args:
        kind: "topline" and "human" are no speech language models, a "prediction" was never trained.
        modality: what the system was trained on, in words. init: the text model it began from; "none"; "" unknown.
        params, tokens, hours, flops: as stated there; None where not. tokens: all, of pre-training.
        metric: a key of METRICS. direction: modality of prompt and ending; "" for generation.
        version: of StoryCloze's audio, a key of VERSIONS. mean: of sBLIMP, a key of MEANS.
        value: as printed, accuracies in percent.
        source, where, url: where the number was read. caveat: in our words, where sources disagree or it matters.
    """

    system: str
    kind: Kind
    modality: str
    init: str
    params: float | None
    params_non_embedding: float | None
    speech_tokens: float | None
    text_tokens: float | None
    tokens: float | None
    preference_tokens: float | None
    hours: float | None
    flops: float | None
    metric: str
    direction: str
    version: str
    mean: str
    value: float
    source: str
    where: str
    url: str
    verified: Verified
    caveat: str

    @property
    def label(self) -> str:
        """Where the number comes from and what it is. Example: 'Cuervo & Marxer 2024, Table 3; macro mean'"""
        parts = [f"{self.source}, {self.where}" if self.where else self.source]
        if self.metric == "sBLIMP":
            parts.append(f"{self.mean} mean" if self.mean else "mean not stated")
        if self.metric in ("sSC", "tSC"):
            parts.append(f"{self.version or 'unknown'} version")
        if self.kind != "model":
            parts.append({"topline": "not a speech LM", "human": "people", "prediction": "predicted"}[self.kind])
        if self.verified != "read":
            parts.append(
                {"quoted": "quoted there", "digest": "UNVERIFIED digest", "recall": "UNVERIFIED recall"}[self.verified]
            )
        return "; ".join(parts)


_SCORES: dict[str, tuple[str, str]] = {
    "sWUGGY": ("sWUGGY", "ss"),
    "sWUGGY_all": ("sWUGGY all", "ss"),
    "sBLIMP": ("sBLIMP", "ss"),
    "sBLIMP_pair": ("sBLIMP", "ss"),
    "BLIMP": ("BLiMP", "tt"),
    **{f"{name}_{way}": (name, way) for name in ("sSC", "tSC") for way in ("ss", "st", "ts", "tt")},
    "GenPPL": ("GenPPL", ""),
    "AutoBLEU": ("Auto-BLEU", ""),
}
"""Column of the table -> metric, direction."""
_NUMBERS = (
    "params",
    "params_non_embedding",
    "speech_tokens",
    "text_tokens",
    "tokens",
    "preference_tokens",
    "hours",
    "flops",
)
_TEXTS = ("system", "modality", "init", "source", "where", "url", "caveat")


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Every number of the table, in its order, also those from memory.

    Source: the papers and repositories named in each row; figures and facts only.
    """
    table = resources.files("speechscale.scaling") / "published_slms.csv"
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return tuple(score for row in rows for score in _scores(row))


def published(
    metric: str,
    *,
    direction: str | None = None,
    version: str | None = None,
    mean: str | None = None,
    kinds: Collection[Kind] = MODELS,
    verified: Collection[Verified] = SEEN,
) -> list[PublishedScore]:
    """Published numbers of one metric, in the table's order.

    Args:
        metric: a key of METRICS, in any case. direction, version, mean: only these; None for all.
        kinds, verified: only these. What nobody of us saw in print ("digest", "recall") has to be asked for.

    Raises:
        DataError: a metric, version or mean that the table has not; lists those it has.

    Example: max(published("sBLIMP", mean="macro"), key=lambda s: s.value).value -> 61.33
    """
    by_folded = {name.casefold(): name for name in METRICS}
    if metric.casefold() not in by_folded:
        raise DataError(f"no published scores of '{metric}'{nearest(metric, list(METRICS))}")
    for what, asked, known in (("version", version, VERSIONS), ("mean", mean, MEANS)):
        if asked is not None and asked not in known:
            raise DataError(
                f"published scores: {what} '{asked}' is not known{nearest(asked, list(filter(None, known)))}"
            )
    assert set(kinds) <= set(get_args(Kind))
    assert set(verified) <= set(VERIFIED)
    return [
        score
        for score in published_scores()
        if score.metric == by_folded[metric.casefold()]
        and direction in (None, score.direction)
        and version in (None, score.version)
        and mean in (None, score.mean)
        and score.kind in kinds
        and score.verified in verified
    ]


def published_system(name: str) -> list[PublishedScore]:
    """All numbers of one system, however verified. Raises DataError for a system the table has not."""
    found = [score for score in published_scores() if score.system.casefold() == name.casefold()]
    if not found:
        systems = list(dict.fromkeys(score.system for score in published_scores()))
        raise DataError(f"no published scores of the system '{name}'{nearest(name, systems)}")
    return found


def _scores(row: dict[str, str]) -> list[PublishedScore]:
    common: dict[str, Any] = {name: row[name] for name in (*_TEXTS, "kind", "verified")}
    common |= {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    means = {"sBLIMP": row["sblimp_mean"], "sBLIMP_pair": "pair"}
    return [
        PublishedScore(
            **common,
            metric=metric,
            direction=direction,
            version=_version(row["storycloze"], metric, direction),
            mean=means.get(column, ""),
            value=float(row[column]),
        )
        for column, (metric, direction) in _SCORES.items()
        if row[column]
    ]


def _version(storycloze: str, metric: str, direction: str) -> str:
    if metric not in ("sSC", "tSC"):
        return ""
    return "text" if direction == "tt" else storycloze
