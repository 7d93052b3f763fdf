"""Give an imported corpus other splits.

Enters: a corpus folder. Leaves: another one with the same audio and new splits. The one decision worth knowing: when
speakers and texts hang together in one piece, held-out speakers are kept whole and the training utterances that say a
held-out text are dropped, by name and only on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from speechscale.corpus.imported import Corpus, write_corpus
from speechscale.corpus.splits import SPLITS, TOLERANCE, By, Groups, draw_splits, key_hash, text_key
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.skips import SkipLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """The new corpus, utterances and groups per split, share of the largest group, and what was dropped."""

    corpus: Corpus
    utterances: dict[str, int]
    groups: dict[str, int]
    largest: float
    skips: SkipLog


def split_corpus(
    corpus: Corpus,
    out: Path,
    *,
    by: By = "speaker",
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    tolerance: float = TOLERANCE,
    drop_shared: bool = False,
) -> Divided:
    """Write `out`: the same utterances with splits by speaker, by text, or by both.

    The same corpus in any order gets the same splits. Memory holds hashes of speakers and texts.

    Args:
        tolerance: how far above the largest share one group may be before this is refused.
        drop_shared: by speaker: also drop utterances whose text is in a later split (train, select, test in order).

    Raises:
        DataError: an utterance without speaker, groups that cannot make these shares, nothing left to train on.
    """
    if out.resolve() == corpus.folder.resolve():
        raise DataError(f"{out}: the new corpus would overwrite the one it is made from; give another folder")
    if drop_shared and by != "speaker":
        raise DataError(f"--drop-shared goes with --by speaker; by {by} no text is shared between splits anyway")
    groups = Groups(by)
    for utterance in corpus.utterances():
        groups.add(utterance)
    labels = groups.labels()
    chosen = draw_splits(labels, shares, seed=seed, by=by, tolerance=tolerance)
    log, counts = SkipLog(), Counter[str]()
    heard = _later_texts(corpus, chosen) if drop_shared else {}

    def stream() -> Iterator[Utterance]:
        for row, utterance in enumerate(corpus.utterances()):
            split = int(chosen[row])
            later = heard.get(key_hash(text_key(utterance)), 0) >> (split + 1) if drop_shared else 0
            if later:
                names = " and ".join(SPLITS[split + 1 + bit] for bit in range(2) if later >> bit & 1)
                log.add(utterance.id, f"its text is also in {names}", "split without --drop-shared, or by text")
                continue
            counts[SPLITS[split]] += 1
            yield replace(utterance, split=SPLITS[split])

    how = {"by": by, "shares": list(shares), "seed": seed, "tolerance": tolerance, "drop_shared": drop_shared}
    info = {**corpus.info, "splits": {"from": "split", **how}, "corpus": str(corpus.folder.resolve())}
    made = write_corpus(out, stream(), audio_root=corpus.audio_root, info=info, skips=log)
    log.check(read=len(groups), kept=sum(counts.values()))
    empty = [name for name, share in zip(SPLITS, shares, strict=True) if share > 0 and not counts[name]]
    if empty:
        (out / "corpus.json").unlink()
        raise DataError(
            f"no utterance is left in {', '.join(empty)}: all {len(log)} dropped ones share their text with a later "
            "split; split by text, or by speaker without --drop-shared"
        )
    sizes = np.unique(labels, return_counts=True)[1]
    return Divided(
        corpus=made,
        utterances={name: counts[name] for name in SPLITS},
        groups={name: len(np.unique(labels[chosen == index])) for index, name in enumerate(SPLITS)},
        largest=float(sizes.max()) / len(labels),
        skips=log,
    )


def _later_texts(corpus: Corpus, chosen: Int[np.ndarray, " utterances"]) -> dict[int, int]:
    """Text -> the splits it is in, one bit each."""
    masks: dict[int, int] = {}
    for row, utterance in enumerate(corpus.utterances()):
        key = key_hash(text_key(utterance))
        masks[key] = masks.get(key, 0) | 1 << int(chosen[row])
    return masks
