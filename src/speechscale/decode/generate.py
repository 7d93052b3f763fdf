"""Continue token sequences, in one modality or freely.

Enters: a transformers causal language model, its vocabulary, prompts as token ids. Leaves: the new token ids, as they
come or all at once. The one decision worth knowing: every continuation draws from a generator of its own (seed, prompt,
sample) and stands in a row of its own length: what becomes of a prompt does not depend on its neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from speechscale.decode.compiled import CompiledSteps
from speechscale.decode.grammar import Grammar
from speechscale.decode.lean import is_lean
from speechscale.decode.limits import token_limit
from speechscale.decode.sampling import Chooser
from speechscale.decode.settings import Decoding, Modality, Stop
from speechscale.decode.steppers import stepper_of
from speechscale.model.anatomy import evaluating, head_of
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary

Ids = Int[np.ndarray, " tokens"]
PromptIds = Sequence[Sequence[int] | Ids]
SHRINK_AT = 0.75
"""Share of rows still going on, from which the others are dropped; each drop copies the cache."""
NOISE_STEPS = 256
"""Steps for which numbers are drawn at once, so that output without end needs no memory without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """New ids without what ended them. ended: the model came to an end by itself."""

    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Tokens of one step. rows: continuations that got one (prompt i, sample j: row i * samples + j). ended: the token
    ends its row and is not part of it."""

    rows: Int[np.ndarray, " alive"]
    tokens: Int[np.ndarray, " alive"]
    ended: np.ndarray


def continuations(
    model: Any,
    vocabulary: Vocabulary,
    prompt_ids: PromptIds,
    settings: Decoding,
    numbers: Sequence[int] | None = None,
    compiled: CompiledSteps | None = None,
) -> list[list[Continuation]]:
    """Continue every prompt, `settings.samples` times each; the outer list is in the order of the prompts.

    Args:
        model: a transformers `*ForCausalLM` of `vocabulary.size` ids.
        prompt_ids: prompts, each opened with `<eos>` (and markers) as in training; see `layouts.prompt_ids`.
        numbers: of the prompts, for their generators; None: 0, 1, ... A prompt keeps its draws in any batch.
        compiled: steps of this model that were compiled, for long work.

    Raises:
        DataError: an empty prompt, ids the model does not know, prompt and continuation longer than the context (and no
            window), a modality the vocabulary lacks, logits that are not finite.
    """
    rows = len(prompt_ids) * settings.samples
    taken = list(steps(model, vocabulary, prompt_ids, settings, numbers, compiled))
    chosen = np.full((rows, len(taken)), -1, np.int64)
    ended = np.zeros(rows, bool)
    for number, step in enumerate(taken):
        chosen[step.rows, number] = np.where(step.ended, -1, step.tokens)
        ended[step.rows] = step.ended
    made = [
        Continuation(ids=tuple(row[row >= 0].tolist()), ended=bool(end)) for row, end in zip(chosen, ended, strict=True)
    ]
    return [made[i * settings.samples : (i + 1) * settings.samples] for i in range(len(prompt_ids))]


def steps(
    model: Any,
    vocabulary: Vocabulary,
    prompt_ids: PromptIds,
    settings: Decoding,
    numbers: Sequence[int] | None = None,
    compiled: CompiledSteps | None = None,
) -> Iterator[Step]:
    """Yield the tokens of each step as they come; arguments and errors as `continuations`."""
    grammar = Grammar.of(vocabulary, settings.modality, settings.stop)
    prompts = [np.asarray(prompt, np.int64) for prompt in prompt_ids]
    limit = token_limit(model, prompts, settings)
    if not prompts or settings.max_new_tokens == 0:
        return
    named = list(range(len(prompts)) if numbers is None else numbers)
    asked = _Asked(model, vocabulary, prompts, settings, grammar, limit, named, compiled)
    rows = [(i, j) for i in range(len(prompts)) for j in range(settings.samples)]
    if settings.window is None or is_lean(model) or len(rows) == 1:
        yield from _Run(asked, rows)
    else:
        yield from _merged([list(_Run(asked, [row])) for row in rows])


def _merged(runs: list[list[Step]]) -> Iterator[Step]:
    """Steps of continuations that were made one after the other, side by side."""
    for number in range(max(map(len, runs))):
        now = [(row, run[number]) for row, run in enumerate(runs) if number < len(run)]
        yield Step(
            rows=np.array([row for row, _ in now]),
            tokens=np.concatenate([step.tokens for _, step in now]),
            ended=np.concatenate([step.ended for _, step in now]),
        )


class _Asked(NamedTuple):
    """What the rows of a call share. limit: tokens that a row may hold. numbers: of the prompts."""

    model: Any
    vocabulary: Vocabulary
    prompts: list[Ids]
    settings: Decoding
    grammar: Grammar
    limit: int
    numbers: list[int]
    compiled: CompiledSteps | None


class _Run:
    """Continuations (prompt, sample) made side by side; iterating runs it."""

    def __init__(self, asked: _Asked, rows: list[tuple[int, int]]) -> None:
        self.model, self.vocabulary, self.settings, self.limit = (
            asked.model,
            asked.vocabulary,
            asked.settings,
            asked.limit,
        )
        used = sorted({prompt for prompt, _ in rows})
        self.prompts = [asked.prompts[i] for i in used]
        self.source = np.array([used.index(prompt) for prompt, _ in rows])
        own = [self.prompts[i] for i in self.source]
        states = asked.grammar.start(own, asked.vocabulary)
        self.chooser = Chooser(head_of(asked.model), asked.grammar, asked.settings, own, states)
        named = [(asked.numbers[prompt], sample) for prompt, sample in rows]
        self.generators = [_generator(self.settings.seed, name) for name in named]
        self.held = np.array([len(prompt) for prompt in own])  # tokens in each row's window
        self.read = np.zeros((len(rows), 0 if self.settings.window is None else self.limit), np.int64)  # these tokens
        if self.settings.window is not None:
            for row, prompt in enumerate(own):
                self.read[row, : len(prompt)] = prompt
        self.number = torch.tensor([prompt for prompt, _ in named], device=asked.model.device)
        made = asked.compiled
        self.stepper = stepper_of(asked.model, asked.limit) if made is None else made.stepper(asked.limit)

    def __iter__(self) -> Iterator[Step]:
        with evaluating(self.model) if self.model.training else nullcontext():
            turns = self._turns()
            while True:
                with torch.inference_mode():  # not around the caller's loop, who may train or run another stream there
                    step = next(turns, None)
                if step is None:
                    return
                yield step

    def _turns(self) -> Iterator[Step]:
        hidden = self.stepper.prefill(self.prompts)
        rows = torch.arange(len(self.source), device=hidden.device)  # of the cache -> continuations
        if len(self.source) != len(self.prompts):
            copies = torch.from_numpy(self.source).to(hidden.device)
            self.stepper.keep(copies)
            hidden = hidden[copies]
        alive = np.ones(len(rows), bool)
        for step in range(self.settings.max_new_tokens):
            if step % NOISE_STEPS == 0:
                noise = self._noise().to(hidden.device)
            tokens, ends = self.chooser(hidden, noise[rows, step % NOISE_STEPS], step, self.number[rows])
            names, drawn, ended = rows.cpu().numpy(), tokens.cpu().numpy(), ends.cpu().numpy()
            yield Step(rows=names[alive], tokens=drawn[alive], ended=ended[alive])
            alive &= ~ended
            if not alive.any() or step == self.settings.max_new_tokens - 1:
                return
            if self.stepper.shrinks and alive.mean() <= SHRINK_AT:
                left = torch.from_numpy(np.flatnonzero(alive)).to(rows.device)
                self.stepper.keep(left)
                self.chooser.keep(left)
                rows, tokens, alive = rows[left], tokens[left], np.ones(len(left), bool)
            if self.settings.window is not None:
                self._forget(rows.cpu().numpy(), tokens.cpu().numpy())
            hidden = self.stepper.advance(tokens)

    def _noise(self) -> Float[torch.Tensor, "rows steps"]:
        """Numbers of the next steps; each continuation's are its own."""
        steps = min(NOISE_STEPS, self.settings.max_new_tokens)
        return torch.stack([torch.rand(steps, generator=own, dtype=torch.float64) for own in self.generators])

    def _forget(self, names: np.ndarray, newest: np.ndarray) -> None:
        """Rows whose window is full keep their opening and the newer half of it; the newest token is read next."""
        for row in np.flatnonzero(self.held[names] == self.limit).tolist():
            kept = _shortened(self.read[names[row]], self.limit // 2, self.vocabulary)
            self.stepper.refill(row, kept)
            self.read[names[row], : len(kept)] = kept
            self.held[names[row]] = len(kept)
        self.read[names, self.held[names]] = newest
        self.held[names] += 1


def _shortened(seen: Ids, keep: int, vocabulary: Vocabulary) -> Ids:
    """The opening and the newest tokens, `keep` in all. A marker says in which modality they begin."""
    opening = [int(seen[0])] if seen[0] == vocabulary.eos_id else []
    markers = [marker for marker in (vocabulary.SPEECH, vocabulary.TEXT) if marker is not None]
    newest = seen[len(seen) - (keep - len(opening)) :]
    before = seen[: len(seen) - len(newest) + 1]
    marked = before[np.isin(before, markers)]
    if len(marked) and newest[0] not in markers:
        newest = np.concatenate([marked[-1:], newest[1:]])
    return np.concatenate([np.array(opening, np.int64), newest])


def generate(
    model: Any,
    vocabulary: Vocabulary,
    prompt_ids: PromptIds,
    *,
    max_new_tokens: int,
    modality: Modality = "free",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> list[list[int]]:
    """One continuation of every prompt, as ids; see `continuations` and `Decoding`."""
    stop: Stop = "eos" if stop_at_eos else "never"
    settings = Decoding(
        max_new_tokens=max_new_tokens,
        modality=modality,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=stop,
    )
    return [list(one.ids) for (one,) in continuations(model, vocabulary, prompt_ids, settings)]


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


def _generator(seed: int, number: tuple[int, int]) -> torch.Generator:
    """Of one continuation; the first sample's is that of its prompt alone."""
    prompt, sample = number
    state = np.random.SeedSequence((seed, prompt, sample) if sample else (seed, prompt)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
