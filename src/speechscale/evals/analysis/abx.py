"""ABX on units, free of prosody: is X, a word, nearer to A, the same word, than to B, another one?

Enters: units with word (or phone) times. Leaves: error rates within and across speakers, with intervals.
The one decision worth knowing: words are compared as sequences of units without durations, so how long a sound lasts,
and with it much of the prosody, cannot help; what is left is which units come in which order.

Source: Schatz et al. 2013 (ABX); Nguyen et al. 2020 (ZeroSpeech 2021), whose averages over cells are taken here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.evals.analysis.abx_distance import dtw_matrix, edit_matrix
from speechscale.evals.analysis.abx_tokens import Token
from speechscale.speech.retrieval import collapse

Condition = Literal["within", "across"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
"""A, B and X by one speaker; or A and B by one, X by another."""
Distance = Literal["edit", "dtw"]
"""Edit distance of collapsed units; or warped frames, in which durations are."""
TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class AbxConfig:
    """What is compared. The caps bound the work; what they leave out is drawn by `seed` and counted.

    Args:
        min_count: tokens a category needs. max_categories: drawn from those, all alike.
        max_tokens: per category, context and speaker. max_contexts, max_speakers: drawn likewise.
        replicates: bootstrap resamples of categories.
    """

    min_count: int = 2
    max_categories: int = 100
    max_tokens: int = 10
    max_contexts: int = 500
    max_speakers: int = 10
    distance: Distance = "edit"
    seed: int = 0
    replicates: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("min_count", 2), ("max_categories", 2), ("max_tokens", 2), ("max_contexts", 1)):
            if getattr(self, name) < least:
                raise DataError(f"ABX: {name} = {getattr(self, name)}; allowed is {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class AbxError:
    """Error rate in one condition; chance is 0.5, whatever the categories.

    Args:
        low, high: 95 % interval over other categories of the same speakers; None below three categories.
        pairs: of categories that were compared. cells: ordered pairs by speakers and context. ties: share of triples.
    """

    condition: Condition
    distance: Distance
    error: float
    low: float | None
    high: float | None
    categories: int
    speakers: int
    tokens: int
    pairs: int
    cells: int
    triples: int
    ties: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AbxResult:
    """Figures of the conditions that exist, and what the caps left out: name -> (taken, of)."""

    figures: tuple[AbxError, ...]
    taken: dict[str, tuple[int, int]]


def abx(
    tokens: Sequence[Token], config: AbxConfig | None = None, *, conditions: Sequence[Condition] = CONDITIONS
) -> AbxResult:
    """Measure ABX error rates.

    A triple is wrong if B is nearer to X than A is, half wrong if both are equally near. Errors are averaged over the
    triples of a cell (A's and B's category, speakers, context), then over contexts, over X's speakers, over speakers
    of A and B, over the two orders of a pair of categories, and over pairs.

    Raises:
        DataError: no condition has a cell; the message says what there is.

    Example: abx(word_instances(labeled(table), table.frame_rate_hz)).figures[0].error
    """
    config = config or AbxConfig()
    chosen, taken = _choose(tokens, config)
    groups: dict[str, dict[str, list[Token]]] = defaultdict(lambda: defaultdict(list))
    for token in chosen:
        groups[token.context][token.speaker].append(token)
    categories = sorted({token.category for token in chosen})
    figures = []
    for condition in conditions:
        figure = _condition(condition, groups, categories, config, len(chosen))
        if figure is not None:
            figures.append(figure)
    if not figures:
        speakers = len({token.speaker for token in tokens})
        raise DataError(
            f"ABX: {len(tokens):,} tokens of {len({t.category for t in tokens}):,} categories and {speakers} speakers "
            f"give nothing to compare; needed are two categories by one speaker, one of them twice (within), or also "
            "by another speaker (across)"
        )
    return AbxResult(figures=tuple(figures), taken=taken)


def _choose(tokens: Sequence[Token], config: AbxConfig) -> tuple[list[Token], dict[str, tuple[int, int]]]:
    """Draw what the caps allow, from sorted names, so that the order of the corpus does not matter for them."""
    rng = np.random.default_rng(config.seed)
    taken: dict[str, tuple[int, int]] = {}

    def cap(name: str, found: Sequence[str], most: int) -> frozenset[str]:
        kept = sorted(found)
        if len(kept) > most:
            kept = [kept[i] for i in np.sort(rng.choice(len(kept), most, replace=False))]
        taken[name] = (len(kept), len(found))
        return frozenset(kept)

    counts: dict[str, int] = defaultdict(int)
    for token in tokens:
        counts[token.category] += 1
    every = len(counts)
    enough = [name for name, count in counts.items() if count >= config.min_count]
    categories = cap("categories", enough, config.max_categories)
    taken["categories"] = (len(categories), every)
    speakers = cap("speakers", list({token.speaker for token in tokens}), config.max_speakers)
    kept = [t for t in tokens if t.category in categories and t.speaker in speakers]
    contexts = cap("contexts", list({token.context for token in kept}), config.max_contexts)
    cells: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, token in enumerate(kept):
        if token.context in contexts:
            cells[token.context, token.speaker, token.category].append(number)
    chosen = []
    for key in sorted(cells):
        numbers = cells[key]
        if len(numbers) > config.max_tokens:
            numbers = np.sort(rng.choice(numbers, config.max_tokens, replace=False)).tolist()
        chosen += [kept[number] for number in numbers]
    taken["tokens"] = (len(chosen), len(tokens))
    return chosen, taken


@dataclass(slots=True)
class _Tally:
    """How much was compared."""

    cells: int = 0
    triples: int = 0
    tied: float = 0.0


def _condition(
    condition: Condition,
    groups: dict[str, dict[str, list[Token]]],
    categories: Sequence[str],
    config: AbxConfig,
    tokens: int,
) -> AbxError | None:
    code = {name: i for i, name in enumerate(categories)}
    speakers = sorted({speaker for by_speaker in groups.values() for speaker in by_speaker})
    measure: Callable[..., np.ndarray] = dtw_matrix if config.distance == "dtw" else edit_matrix
    tally = _Tally()
    by_speaker = _Mean(len(code))
    for ab in speakers:
        by_other = _Mean(len(code))
        for x in [ab] if condition == "within" else [other for other in speakers if other != ab]:
            by_context = _Mean(len(code))
            for context in sorted(groups):
                if ab in groups[context] and x in groups[context]:
                    by_context.add(_cells(groups[context][ab], groups[context][x], code, measure, config, tally))
            by_other.add(by_context.value)
        by_speaker.add(by_other.value)
    ordered = by_speaker.value
    if not np.isfinite(ordered).any():
        return None
    both = np.stack([ordered, ordered.T])
    known = np.isfinite(both)
    pairs = np.where(known, both, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    there = np.triu(known.any(axis=0), 1)
    low, high = _interval(pairs, there, config)
    return AbxError(
        condition=condition,
        distance=config.distance,
        error=float(pairs[there].mean()),
        low=low,
        high=high,
        categories=int(known.any(axis=(0, 1)).sum()),
        speakers=len(speakers),
        tokens=tokens,
        pairs=int(there.sum()),
        cells=tally.cells,
        triples=tally.triples,
        ties=tally.tied / max(tally.triples, 1),
    )


class _Mean:
    """Mean of matrices, entry by entry, over those that have one there."""

    def __init__(self, size: int) -> None:
        self.total, self.count = np.zeros((size, size)), np.zeros((size, size), np.int64)

    def add(self, values: Float[np.ndarray, "a b"]) -> None:
        known = np.isfinite(values)
        self.total[known] += values[known]
        self.count += known

    @property
    def value(self) -> Float[np.ndarray, "a b"]:
        with np.errstate(invalid="ignore"):
            return self.total / self.count


def _cells(
    ab: Sequence[Token],
    x: Sequence[Token],
    code: dict[str, int],
    measure: Callable[..., np.ndarray],
    config: AbxConfig,
    tally: _Tally,
) -> Float[np.ndarray, "a b"]:
    """Error of every cell of two speakers in one context; NaN where a cell has no triple. Tokens lie by category."""
    same = ab is x
    prepare = collapse if config.distance == "edit" else np.asarray
    columns = [prepare(token.frames) for token in ab]
    distances = measure(columns if same else [prepare(token.frames) for token in x], columns)
    codes = np.array([code[token.category] for token in ab])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    present, sizes = codes[starts], np.diff(np.append(starts, len(codes)))
    first_of = dict(zip(present.tolist(), zip(starts, starts + sizes, strict=True), strict=True))
    total = np.zeros((len(code), len(present)))
    rows = np.zeros(len(code), np.int64)
    for number, token in enumerate(x):
        category = code[token.category]
        if category not in first_of:
            continue
        own = np.arange(*first_of[category])
        own = own[own != number] if same else own
        if not len(own) or len(present) < 2:
            continue
        to_a, to_b = distances[number, own][:, None], distances[number]
        wrong, tied = to_b < to_a - TIE, np.abs(to_b - to_a) <= TIE  # (A, B)
        score = np.add.reduceat((wrong + 0.5 * tied).mean(axis=0), starts) / sizes
        total[category] += score
        rows[category] += 1
        other = codes != category
        tally.triples += len(own) * int(other.sum())
        tally.tied += float(tied[:, other].sum())
    found = np.full((len(code), len(code)), np.nan)
    here = np.flatnonzero(rows)
    found[np.ix_(here, present)] = total[here] / rows[here, None]
    np.fill_diagonal(found, np.nan)
    tally.cells += int(np.isfinite(found).sum())
    return found


def _interval(
    pairs: Float[np.ndarray, "a b"], there: np.ndarray, config: AbxConfig
) -> tuple[float | None, float | None]:
    """Resample categories; a pair counts as often as both of its categories together, a category with itself never."""
    used = np.flatnonzero((there | there.T).any(axis=0))
    if len(used) < 3:
        return None, None
    mask = there[np.ix_(used, used)].astype(np.float64)
    values = np.where(mask > 0, pairs[np.ix_(used, used)], 0.0)
    rng = np.random.default_rng([config.seed, len(used)])
    weights = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), size=config.replicates).astype(np.float64)
    number = ((weights @ mask) * weights).sum(axis=1)
    total = ((weights @ values) * weights).sum(axis=1)
    replicates = total[number > 0] / number[number > 0]
    if len(replicates) < 2:
        return None, None
    low, high = np.percentile(replicates, [2.5, 97.5])
    return float(low), float(high)
