"""How good units are: what they tell about phones, what about the speaker, and what they cost.

Enters: units per frame of utterances, with phone and word times where known. Leaves: a `Quality` of figures, each with
an interval and, where it means something, its chance level. The one decision worth knowing: a plug-in estimate of
information grows with the number of units and shrinks with data, so every information has its own chance level,
measured on the same data with the pairing broken; compare units only at equal numbers of units on equal data.

Source: Hsu et al. 2021 (HuBERT), section IV.D (phone purity, cluster purity, PNMI).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.speech.information import Z95, Estimate, entropy, interval, mutual_information, resample
from speechscale.speech.labeled import Labeled, phone_index, phones_at
from speechscale.speech.quality_shift import ShiftCurve, shift_curve
from speechscale.speech.retrieval import WordToken, retrieve, word_tokens

_ROTATIONS = 5
_SHUFFLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The figures of one corpus; None where the labels they need are missing.

    Args:
        pnmi: I(phone; unit) / H(phone); its chance is what units rotated within their utterance get.
        phone_purity: share of frames whose phone is the most frequent one of their unit.
        cluster_purity: share of frames whose unit is the most frequent one of their phone.
        speaker_information: I(unit; speaker) / H(speaker), less what utterances with shuffled speakers get, rescaled
            so that 1 stays 1; 0 is units that say nothing of the voice. None with one speaker.
        units_per_second: after deduplication. bits_per_second: that times the entropy of a deduplicated unit.
        retrieval_other: share of words whose nearest word (unit edit distance) among OTHER speakers is the same word.
        retrieval_same: the same among other utterances of the same speaker.
    """

    utterances: int
    speakers: int
    frames: int
    labeled_frames: int
    frame_rate_hz: float
    num_units: int
    used_units: int
    phone_types: int
    pnmi: Estimate | None
    phone_purity: Estimate | None
    cluster_purity: Estimate | None
    speaker_information: Estimate | None
    units_per_second: Estimate
    bits_per_second: Estimate
    retrieval_other: Estimate | None
    retrieval_same: Estimate | None
    shift: ShiftCurve | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as written to quality.json."""
        return asdict(self)


def measure(
    utterances: Sequence[Labeled],
    *,
    frame_rate_hz: float,
    num_units: int,
    seed: int = 0,
    resamples: int = 200,
    queries: int = 300,
    with_shift: bool = True,
) -> Quality:
    """Judge units by their labels.

    Args:
        resamples: bootstrap resamples of utterances behind each interval.
        queries: word tokens that are looked up. with_shift: measure the shift curve, the slowest part.

    Raises:
        DataError: no utterance, or units outside 0..num_units - 1.
    """
    if not utterances:
        raise DataError("unit quality: no utterances came; name a corpus with usable audio")
    for utterance in utterances:
        if len(utterance.units) and not 0 <= int(utterance.units.min()) <= int(utterance.units.max()) < num_units:
            raise DataError(
                f"utterance {utterance.id}: units {utterance.units.min()}..{utterance.units.max()}, allowed "
                f"0..{num_units - 1}; use the tokenizer that made them"
            )
    draws = resample(len(utterances), resamples, seed)
    frames = np.array([len(u.units) for u in utterances])
    phones = _phone_figures(utterances, frame_rate_hz, num_units, draws, seed)
    tokens = word_tokens(utterances, frame_rate_hz)
    everything = np.concatenate([u.units for u in utterances])
    return Quality(
        utterances=len(utterances),
        speakers=len({u.speaker for u in utterances}),
        frames=int(frames.sum()),
        labeled_frames=phones.frames,
        frame_rate_hz=frame_rate_hz,
        num_units=num_units,
        used_units=len(np.unique(everything)),
        phone_types=phones.types,
        pnmi=phones.pnmi,
        phone_purity=phones.phone_purity,
        cluster_purity=phones.cluster_purity,
        speaker_information=_speaker_information(utterances, num_units, draws, seed),
        **_costs(utterances, frame_rate_hz, num_units, draws),
        retrieval_other=_retrieval(tokens, queries, seed, other=True),
        retrieval_same=_retrieval(tokens, queries, seed, other=False),
        shift=shift_curve(utterances, frame_rate_hz=frame_rate_hz, num_units=num_units, seed=seed)
        if with_shift and phones.frames
        else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PhoneFigures:
    frames: int
    types: int
    pnmi: Estimate | None = None
    phone_purity: Estimate | None = None
    cluster_purity: Estimate | None = None


def _phone_figures(
    utterances: Sequence[Labeled], frame_rate_hz: float, num_units: int, draws: np.ndarray, seed: int
) -> _PhoneFigures:
    index = phone_index(utterances)
    labels = [phones_at(u.phones, index, (np.arange(len(u.units)) + 0.5) / frame_rate_hz) for u in utterances]
    owner = np.repeat(np.arange(len(utterances)), [len(u.units) for u in utterances])
    units, phones = np.concatenate([u.units for u in utterances]).astype(np.int64), np.concatenate(labels)
    scored = phones >= 0
    units, phones, owner = units[scored], phones[scored], owner[scored]
    types = len(np.unique(phones))
    if types < 2:
        return _PhoneFigures(frames=len(phones) if types else 0, types=types)
    cells = units * len(index) + phones
    shape = (num_units, len(index))

    def joint(weights: np.ndarray | None, cells: np.ndarray = cells) -> np.ndarray:
        own = None if weights is None else weights[owner]
        return np.bincount(cells, own, minlength=shape[0] * shape[1]).reshape(shape)

    chance = np.mean(
        [_pnmi(joint(None, _rotated(units, owner, seed + k) * len(index) + phones)) for k in range(_ROTATIONS)]
    )
    return _PhoneFigures(
        frames=len(phones),
        types=types,
        pnmi=_estimate(_pnmi, joint, draws, chance=float(chance)),
        phone_purity=_estimate(lambda table: float(table.max(axis=1).sum() / table.sum()), joint, draws),
        cluster_purity=_estimate(lambda table: float(table.max(axis=0).sum() / table.sum()), joint, draws),
    )


def _pnmi(joint: np.ndarray) -> float:
    information, _, phones = mutual_information(joint)
    return information / phones if phones > 0 else 0.0


def _rotated(units: np.ndarray, owner: np.ndarray, seed: int) -> np.ndarray:
    """Units of each utterance, rotated by a random part of it: same units, same runs, wrong place."""
    rng = np.random.default_rng([seed, len(units)])
    bounds = np.flatnonzero(np.diff(owner, prepend=-1, append=-1))
    parts = [units[a:b] for a, b in pairwise(bounds)]
    return np.concatenate([np.roll(part, round(len(part) * rng.uniform(0.2, 0.8))) for part in parts])


def _speaker_information(
    utterances: Sequence[Labeled], num_units: int, draws: np.ndarray, seed: int
) -> Estimate | None:
    names = sorted({u.speaker for u in utterances})
    if len(names) < 2:
        return None
    counts = np.stack([np.bincount(u.units, minlength=num_units) for u in utterances]).astype(np.float64)
    who = np.array([names.index(u.speaker) for u in utterances])
    rng = np.random.default_rng([seed, 1])

    def information(weights: np.ndarray, order: np.ndarray) -> float:
        table = np.zeros((len(names), num_units))
        np.add.at(table, order, counts * weights[:, None])
        shared, speakers, _ = mutual_information(table)
        return shared / speakers if speakers > 0 else 0.0

    ones = np.ones(len(utterances))
    chance = float(np.mean([information(ones, rng.permutation(who)) for _ in range(_SHUFFLES)]))

    def adjusted(value: float) -> float:
        return max(0.0, (value - chance) / max(1 - chance, 1e-9))

    value = adjusted(information(ones, who))
    low, high = interval(value, [adjusted(information(weights, who)) for weights in draws])
    return Estimate(value=value, low=low, high=high, chance=chance)


def _costs(
    utterances: Sequence[Labeled], frame_rate_hz: float, num_units: int, draws: np.ndarray
) -> dict[str, Estimate]:
    """Units per second after deduplication and the bits they carry when each is coded by its frequency."""
    frames = np.array([len(u.units) for u in utterances], np.float64)
    kept = [u.units[np.flatnonzero(np.diff(u.units, prepend=-1))] for u in utterances]
    counts = np.stack([np.bincount(units, minlength=num_units) for units in kept]).astype(np.float64)

    def rate(weights: np.ndarray) -> float:
        return float(weights @ counts.sum(axis=1) / max(weights @ frames, 1) * frame_rate_hz)

    def bits(weights: np.ndarray) -> float:
        total = weights @ counts
        return rate(weights) * entropy(total) if total.sum() else 0.0

    ones = np.ones(len(utterances))
    result = {}
    for name, figure in (("units_per_second", rate), ("bits_per_second", bits)):
        value = figure(ones)
        low, high = interval(value, [figure(weights) for weights in draws], top=np.inf)
        result[name] = Estimate(value=value, low=low, high=high)
    return result


def _retrieval(tokens: Sequence[WordToken], queries: int, seed: int, *, other: bool) -> Estimate | None:
    found = retrieve(tokens, queries=queries, seed=seed, other_speakers=other)
    if found is None:
        return None
    value = float(found.right.mean())
    spread = Z95 * float(found.right.std()) / np.sqrt(len(found.right))
    return Estimate(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread), chance=found.chance)


def _estimate(
    figure: Callable[[np.ndarray], float],
    joint: Callable[[np.ndarray | None], np.ndarray],
    draws: np.ndarray,
    *,
    chance: float | None = None,
) -> Estimate:
    value = figure(joint(None))
    replicates = [figure(table) for table in map(joint, draws) if table.sum()]
    low, high = interval(value, replicates)
    return Estimate(value=value, low=low, high=high, chance=chance)
