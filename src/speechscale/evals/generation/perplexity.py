"""GenPPL: how likely another language model finds what was said.

Enters: transcripts, and any transformers causal LM or a TextLM of ours. Leaves: negative log-likelihoods per text and
the perplexity of the corpus. The one decision worth knowing: the corpus is the exponent of the mean over texts of each
text's mean nats per token, as SIMS and Slam have it; the exponent of the mean over all tokens stands beside it. Logits
come from the model's own forward, not from its output matrix, so that models which cap or scale logits stay right.

Source: Lakhotia et al. 2021 (GSLM); Maimon et al. 2025 (Slam, SIMS) and their code: prompt and continuation, no start
token where the tokenizer adds none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechscale.errors import DataError
from speechscale.evals.generation.estimates import REPLICATES, Estimate, estimate
from speechscale.evals.weights import weights_sha256
from speechscale.model.anatomy import evaluating
from speechscale.model.folders import load_model
from speechscale.tokens.vocabulary import Vocabulary

Span = Literal["whole", "continuation", "alone"]
SPANS: tuple[Span, ...] = ("whole", "continuation", "alone")
BATCH_TOKENS = 4096
LOGIT_ELEMENTS = 2**26
"""Logits held at once (256 MiB of fp32); a single longer text is a batch of its own."""


class Encode(Protocol):
    """From texts to token ids, without a start token."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextJudge:
    """A causal language model that reads text.

    Args:
        start_id: opens every text and is not scored; None: the first token of the text stands there unscored.
        context: longest sequence it takes. name, sha256: for the stamp; sha256 of the weights, "" where not known.
        unknown_id: stands for every word that the vocabulary lacks; such words are cheap, so they are counted.
    """

    model: Any
    encode: Encode
    start_id: int | None
    context: int
    name: str
    sha256: str = ""
    unknown_id: int | None = None

    def stamp(self) -> dict[str, Any]:
        """What decides a perplexity, as plain JSON."""
        return {
            "lm": self.name,
            "lm_sha256": self.sha256,
            "start": "none" if self.start_id is None else "one, unscored",
        }


def load_text_judge(name: Path | str, *, start: Literal["auto", "none"] = "auto", device: str = "cpu") -> TextJudge:
    """Load a TextLM of ours (a folder with vocabulary.json) or any transformers causal LM by folder or hub name.

    Safetensors only, no code from outside.

    Args:
        start: "auto" opens texts with the tokenizer's start token, else its end token; "none" with nothing.

    Raises:
        DataError: nothing there that can be read, or a vocabulary without text.
    """
    folder = Path(name)
    if (folder / "vocabulary.json").is_file():
        return _ours(folder, start, device)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": folder.is_dir()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype=torch.float32, **options)
    except Exception as error:  # the hub's client, os, json and transformers each raise their own
        raise DataError(
            f"language model '{name}' cannot be read ({str(error).strip().partition(chr(10))[0]}); give a folder with "
            "config.json, a tokenizer and *.safetensors, or a hub name that is in the cache or can be reached"
        ) from error
    start_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    return TextJudge(
        model=model.to(device),
        encode=encode,
        start_id=start_id if start == "auto" else None,
        context=int(getattr(model.config, "max_position_embeddings", 0) or 2**31),
        name=folder.resolve().name if folder.is_dir() else str(name),
        sha256=weights_sha256(model),
    )


def _ours(folder: Path, start: str, device: str) -> TextJudge:
    model, vocabulary = load_model(folder), Vocabulary.load(folder)
    if not vocabulary.has_text:
        raise DataError(f"language model {folder}: its vocabulary has no text; give a TextLM or an interleaved model")
    lower = vocabulary.unk_id is not None

    def encode(texts: Sequence[str]) -> list[list[int]]:
        # A word vocabulary of ours knows lower case only.
        return [row.tolist() for row in vocabulary.encode_text([t.lower() if lower else t for t in texts]).rows()]

    return TextJudge(
        model=model.to(device),
        encode=encode,
        start_id=vocabulary.eos_id if start == "auto" else None,
        context=int(model.config.max_position_embeddings),
        name=folder.resolve().name,
        sha256=weights_sha256(model),
        unknown_id=vocabulary.unk_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """One text under a language model: nats and tokens of the scored part, or the reason why there are none.

    Args:
        unknown: tokens among them that stand for unknown words.
    """

    nll: float = 0.0
    tokens: int = 0
    unknown: int = 0
    problem: str = ""

    @property
    def mean_nll(self) -> float | None:
        """Nats per token."""
        return self.nll / self.tokens if self.tokens else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """GenPPL of a corpus.

    Args:
        perplexity: exp(mean over texts of their mean nats per token).
        token_perplexity: exp(nats of all texts / tokens of all texts): long texts count more.
        unknown_tokens: words among them that the model's vocabulary lacks.
        problems: reason -> texts left out for it, such as "empty". scores: one per text, in order.
    """

    perplexity: Estimate
    token_perplexity: Estimate
    tokens: int
    unknown_tokens: int
    problems: dict[str, int]
    scores: tuple[TextScore, ...]

    def record(self) -> dict[str, Any]:
        """As plain JSON, without the single scores."""
        return {
            "perplexity": self.perplexity.record(),
            "token_perplexity": self.token_perplexity.record(),
            "tokens": self.tokens,
            "unknown_tokens": self.unknown_tokens,
            "left_out": self.problems,
        }


def perplexity(
    judge: TextJudge,
    continuations: Sequence[str],
    prompts: Sequence[str] | None = None,
    *,
    span: Span = "whole",
    batch_tokens: int = BATCH_TOKENS,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Perplexity:
    """The perplexity of texts.

    Args:
        prompts: the text before each continuation; None or "" where there is none (or where `continuations` are whole
            transcripts already).
        span: "whole" scores prompt and continuation (SIMS, Slam); "continuation" only the tokens behind the prompt,
            which is read; "alone" the continuation without its prompt.

    Raises:
        DataError: unlike numbers of texts and prompts, an unknown span, log-likelihoods that are not finite.
    """
    if span not in SPANS:
        raise DataError(f"perplexity: span '{span}'; allowed are {', '.join(SPANS)}")
    before = [""] * len(continuations) if prompts is None or span == "alone" else list(prompts)
    if len(before) != len(continuations):
        raise DataError(f"perplexity: {len(before)} prompts, {len(continuations)} continuations; give one of each")
    scores = score_texts(judge, before, continuations, whole=span == "whole", batch_tokens=batch_tokens)
    scored = [score for score in scores if score.tokens]
    rows = np.array([[score.nll, score.tokens] for score in scored], np.float64).reshape(-1, 2)
    options: dict[str, int] = {"replicates": replicates, "seed": seed}
    problems = dict(Counter(score.problem for score in scores if score.problem))
    assert len(scored) + sum(problems.values()) == len(continuations), "kept + left out = read"
    return Perplexity(
        perplexity=estimate(rows, statistic=lambda r: _exp((r[:, 0] / r[:, 1]).mean()), **options),
        token_perplexity=estimate(rows, statistic=lambda r: _exp(r[:, 0].sum() / r[:, 1].sum()), **options),
        tokens=sum(score.tokens for score in scored),
        unknown_tokens=sum(score.unknown for score in scored),
        problems=problems,
        scores=tuple(scores),
    )


def score_texts(
    judge: TextJudge, prompts: Sequence[str], continuations: Sequence[str], *, whole: bool, batch_tokens: int
) -> list[TextScore]:
    """Nats and tokens of each text; batches of like length, padded on the right where nothing can see it."""
    opening = [] if judge.start_id is None else [judge.start_id]
    scores = [TextScore(problem="empty")] * len(continuations)
    jobs: list[tuple[int, list[int], int]] = []  # number, ids, first scored position
    for i, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        prompt, continuation = prompt.strip(), continuation.strip()
        if not continuation and not (whole and prompt):
            continue
        head, ids = _split_ids(judge.encode, prompt, continuation)
        ids, first = opening + ids, max(1, len(opening) + (0 if whole else head))
        if len(ids) > judge.context:
            scores[i] = TextScore(problem=f"longer than the language model's context of {judge.context} tokens")
        elif len(ids) <= first:
            scores[i] = TextScore(problem="no token to score")
        else:
            jobs.append((i, ids, first))
    jobs.sort(key=lambda job: (-len(job[1]), job[0]))
    vocabulary = int(judge.model.config.get_text_config().vocab_size)
    most = min(batch_tokens, LOGIT_ELEMENTS // vocabulary)
    with evaluating(judge.model), torch.inference_mode():
        while jobs:
            rows = max(1, most // len(jobs[0][1]))
            batch, jobs = jobs[:rows], jobs[rows:]
            for (i, ids, first), nll in zip(batch, _nll(judge.model, batch), strict=True):
                unknown = ids[first:].count(judge.unknown_id) if judge.unknown_id is not None else 0
                scores[i] = TextScore(nll=nll, tokens=len(ids) - first, unknown=unknown)
                if not math.isfinite(nll):
                    raise DataError(f"text {i}: the language model's log-likelihood is not finite; use other weights")
    return scores


def _split_ids(encode: Encode, prompt: str, continuation: str) -> tuple[int, list[int]]:
    """Ids of the whole text, and how many of them the prompt has; joined by a blank, as one text is read.

    Where a token spans the border, it belongs to the continuation.
    """
    if not prompt or not continuation:
        (ids,) = encode([prompt or continuation])
        return (len(ids) if prompt else 0), list(ids)
    ids, alone = encode([f"{prompt} {continuation}", prompt])
    same = next((k for k, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), min(len(ids), len(alone)))
    return same, list(ids)


def _nll(model: Any, batch: Sequence[tuple[int, list[int], int]]) -> list[float]:
    """Summed negative log-likelihood of each row from its first scored position on, in float64."""
    width = max(len(ids) for _, ids, _ in batch)
    tokens = np.zeros((len(batch), width), np.int64)
    mask = np.zeros((len(batch), width), np.int64)
    for row, (_, ids, _) in enumerate(batch):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
    wanted: Int[torch.Tensor, "B T"] = torch.from_numpy(tokens).to(model.device)
    logits = model(input_ids=wanted, attention_mask=torch.from_numpy(mask).to(model.device), use_cache=False).logits
    sums = []
    for row, (_, ids, first) in enumerate(batch):
        part = logits[row, first - 1 : len(ids) - 1].float()
        losses = functional.cross_entropy(part, wanted[row, first : len(ids)], reduction="none")
        sums.append(float(losses.double().sum()))
    return sums


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
