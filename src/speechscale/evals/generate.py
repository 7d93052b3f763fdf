"""Continue token sequences, in one modality or freely.

Enters: a transformers causal language model, its vocabulary, prompts as token ids. Leaves: the new token ids.
The one decision worth knowing: only the rows of the output matrix that may be chosen are ever multiplied, so the other
modality cannot come out, and a large text vocabulary costs nothing while speech is generated. Every prompt draws
from a generator of its own (seed, prompt number): what a prompt becomes does not depend on its neighbors' lengths or
on when they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import DynamicCache

from speechscale.errors import DataError
from speechscale.evals.score import evaluating
from speechscale.model.anatomy import Head, head_of
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT, Vocabulary

Modality = Literal["speech", "text", "free"]


def generate(
    model: Any,
    vocabulary: Vocabulary,
    prompt_ids: Sequence[Sequence[int] | Int[np.ndarray, " tokens"]],
    *,
    max_new_tokens: int,
    modality: Modality = "free",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> list[list[int]]:
    """Sample a continuation of every prompt, with cached keys and values.

    Args:
        model: a transformers `*ForCausalLM` of `vocabulary.size` ids.
        prompt_ids: prompts, each opened with `<eos>` (and markers) as in training; see `layouts.prompt_ids`.
        modality: "speech" allows units, "text" text tokens, "free" both and the markers; `<unk>` never comes out.
        temperature: 0 takes the likeliest token; `seed`, `top_k`, `top_p` then have no effect.
        top_k: keep the k likeliest tokens. top_p: of these keep the smallest set with at least this probability.
        seed: prompt i draws from its own generator (seed, i).
        stop_at_eos: allow `<eos>` and end there; otherwise `<eos>` is never chosen.

    Returns:
        New ids per prompt, at most `max_new_tokens`, without the closing `<eos>`.

    Raises:
        DataError: an empty prompt, ids the model does not know, prompt and continuation longer than the context, a
            modality the vocabulary lacks, logits that are not finite.
        ValueError: a sampling setting out of range.
    """
    _check_settings(max_new_tokens, temperature, top_k, top_p)
    allowed = allowed_ids(vocabulary, modality, stop_at_eos=stop_at_eos)
    prompts = [np.asarray(prompt, np.int64) for prompt in prompt_ids]
    _check_prompts(model, prompts, max_new_tokens)
    if not prompts or max_new_tokens == 0:
        return [[] for _ in prompts]
    device = model.device
    choose = _Chooser(head_of(model), torch.from_numpy(allowed).to(device), temperature, top_k, top_p)
    noise = torch.stack([_uniform(seed, i, max_new_tokens) for i in range(len(prompts))]).to(device)  # (B, steps)
    chosen = np.full((len(prompts), max_new_tokens), vocabulary.eos_id, np.int64)
    with evaluating(model), torch.inference_mode():
        decoder = _Decoder(model, prompts)
        alive = torch.arange(len(prompts), device=device)
        for step in range(max_new_tokens):
            tokens = choose(decoder.hidden, noise[alive, step], alive)  # (alive,)
            chosen[alive.cpu().numpy(), step] = tokens.cpu().numpy()
            if stop_at_eos:
                going = torch.nonzero(tokens != vocabulary.eos_id)[:, 0]
                if len(going) < len(alive):
                    alive, tokens = alive[going], tokens[going]
                    decoder.keep(going)
            if len(alive) == 0 or step == max_new_tokens - 1:
                break
            decoder.advance(tokens)
    return [_until(row, vocabulary.eos_id) if stop_at_eos else row.tolist() for row in chosen]


def continue_units(
    model: Any,
    vocabulary: Vocabulary,
    units: Sequence[Int[np.ndarray, " units"]],
    *,
    max_new_units: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> list[Int[np.ndarray, " new_units"]]:
    """Continue speech with speech: deduplicated units in, the new units out (0 .. num_units - 1). See `generate`.

    With subwords a token is worth several units; what goes beyond `max_new_units` is cut off.
    """
    lengths = offsets([len(prompt) for prompt in units])
    spelled = vocabulary.speech_ids(Ragged(np.concatenate([np.zeros(0, np.int64), *units]), lengths))
    new = generate(
        model,
        vocabulary,
        [np.concatenate(([vocabulary.eos_id], prompt)) for prompt in spelled.rows()],
        max_new_tokens=max_new_units,
        modality="speech",
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_at_eos=stop_at_eos,
    )
    return [vocabulary.units_of(np.array(ids, np.int64))[:max_new_units] for ids in new]


def allowed_ids(vocabulary: Vocabulary, modality: Modality, *, stop_at_eos: bool) -> Int[np.ndarray, " allowed"]:
    """Ids that may be chosen, ascending: the modality without `<unk>`, and `<eos>` if it may end the sequence."""
    kinds = {
        "speech": (MODALITY_SPEECH,),
        "text": (MODALITY_TEXT,),
        "free": (MODALITY_SPEECH, MODALITY_TEXT, MODALITY_MARKER),
    }
    if modality not in kinds:
        raise ValueError(f"modality '{modality}': allowed are {', '.join(kinds)}")
    mask = np.isin(vocabulary.modality_table(), kinds[modality])
    mask[[vocabulary.eos_id] if vocabulary.unk_id is None else [vocabulary.eos_id, vocabulary.unk_id]] = False
    if not mask.any():
        raise DataError(f"cannot generate {modality}: this vocabulary has no such tokens")
    mask[vocabulary.eos_id] = stop_at_eos
    return np.flatnonzero(mask)


class _Decoder:
    """Runs the model over the prompts (left-padded), then token by token; `hidden` is the newest output (B, d)."""

    def __init__(self, model: Any, prompts: Sequence[Int[np.ndarray, " tokens"]]) -> None:
        self.body = model.base_model
        device = model.device
        lengths = np.array([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        ids = np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
        self.cache = DynamicCache(config=model.config)
        self.padding = torch.from_numpy(width - lengths).to(device)  # (B,)
        self.ragged = bool((lengths != width).any())
        self.seen = 0
        self.hidden = self._run(torch.from_numpy(ids).to(device))

    def advance(self, tokens: Int[torch.Tensor, " B"]) -> None:
        """Feed one token per row."""
        self.hidden = self._run(tokens[:, None])

    def keep(self, rows: Int[torch.Tensor, " kept"]) -> None:
        """Forget all other rows."""
        self.cache.batch_select_indices(rows)
        self.padding, self.hidden = self.padding[rows], self.hidden[rows]

    def _run(self, ids: Int[torch.Tensor, "B T"]) -> Float[torch.Tensor, "B d"]:
        before, self.seen = self.seen, self.seen + ids.shape[1]
        extra: dict[str, torch.Tensor] = {}
        if self.ragged:
            columns = torch.arange(self.seen, device=ids.device)
            extra["attention_mask"] = (columns >= self.padding[:, None]).long()
            extra["position_ids"] = (columns[before:] - self.padding[:, None]).clamp(min=0)
        output = self.body(input_ids=ids, past_key_values=self.cache, use_cache=True, **extra)
        return output.last_hidden_state[:, -1]


class _Chooser:
    """Chooses one allowed token per row from the newest hidden states."""

    def __init__(
        self,
        head: Head,
        allowed: Int[torch.Tensor, " allowed"],
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> None:
        self.allowed, self.temperature, self.top_p = allowed, temperature, top_p
        self.top_k = None if top_k is None or top_k >= len(allowed) else top_k
        bias = None if head.bias is None else head.bias.detach()[allowed]
        self.head = head._replace(weight=head.weight.detach()[allowed], bias=bias)  # (allowed, d)

    def __call__(
        self, hidden: Float[torch.Tensor, "B d"], noise: Float[torch.Tensor, " B"], rows: Int[torch.Tensor, " B"]
    ) -> Int[torch.Tensor, " B"]:
        logits = self.head.logits(hidden).float()  # (B, allowed)
        finite = torch.isfinite(logits).all(dim=1)
        if not bool(finite.all()):
            raise DataError(
                f"prompt {int(rows[~finite][0])}: the model gives logits that are not finite; "
                "its weights have diverged: use an earlier checkpoint or a lower learning rate"
            )
        if self.temperature == 0:
            return self.allowed[logits.argmax(dim=1)]
        probabilities = torch.softmax(logits.double() / self.temperature, dim=1)
        if self.top_k is None and self.top_p is None:
            return self.allowed[_draw(probabilities, noise)]
        ranked, order = torch.sort(probabilities, dim=1, descending=True, stable=True)
        if self.top_k is not None:
            ranked[:, self.top_k :] = 0
            ranked /= ranked.sum(dim=1, keepdim=True)
        if self.top_p is not None:
            before = ranked.cumsum(dim=1) - ranked
            ranked[:, 1:][before[:, 1:] >= self.top_p] = 0
        return self.allowed[order.gather(1, _draw(ranked, noise)[:, None])[:, 0]]


def _draw(weights: Float[torch.Tensor, "B V"], noise: Float[torch.Tensor, " B"]) -> Int[torch.Tensor, " B"]:
    """Invert the cumulative sum at `noise` in [0, 1); an entry of weight 0 is never drawn."""
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1]
    below = torch.minimum(noise * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, below[:, None], right=True)[:, 0]


def _uniform(seed: int, prompt: int, steps: int) -> Float[torch.Tensor, " steps"]:
    state = np.random.SeedSequence((seed, prompt)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return torch.rand(steps, generator=generator, dtype=torch.float64)


def _until(ids: Int[np.ndarray, " tokens"], end: int) -> list[int]:
    """Cut in front of the first `end`. Example: [4, 5, 0, 0], 0 -> [4, 5]"""
    ends = np.flatnonzero(ids == end)
    return [int(i) for i in (ids[: ends[0]] if len(ends) else ids)]


def _check_settings(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens}: give 0 or more")
    if not (np.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature {temperature}: give 0 (greedy) or a positive number")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k}: give at least 1, or None for no limit")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p}: give a probability above 0 and at most 1, or None")


def _check_prompts(model: Any, prompts: Sequence[Int[np.ndarray, " tokens"]], max_new_tokens: int) -> None:
    context, vocabulary = model.config.max_position_embeddings, model.config.vocab_size
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise DataError(f"prompt {i} is empty; open it at least with the document start <eos>")
        if prompt.min() < 0 or prompt.max() >= vocabulary:
            raise DataError(
                f"prompt {i}: token ids run {prompt.min()}..{prompt.max()}, the model has {vocabulary} ids; "
                "use the vocabulary saved with this model"
            )
        if len(prompt) + max_new_tokens > context:
            raise DataError(
                f"prompt {i}: {len(prompt)} tokens and {max_new_tokens} new ones, the model's context holds {context}; "
                "shorten one of them"
            )
