"""Log-probabilities of completions: packed, of any model; and those of the reference, computed once and kept in a file.

Enters: pairs of ids, an `Objective`. Leaves: packed rows that know whose each target is, and sums of nats per
completion.
The one decision worth knowing: the reference of DPO is the model before the first step, so its numbers are taken
before that step and no second model is ever held. The file is believed only if its checksum and its pairs are right
and the model at hand gives the same numbers for a few of them.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.distributed.fsdp import FSDPModule

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.progress import Progress, Watch
from speechscale.records import offsets
from speechscale.tokens.packing import Batch, IdTables, Row, assemble, pack_block
from speechscale.tokens.ragged import Ragged, gather_rows, ragged_arange
from speechscale.train.attention import Attention, choose_kernel, lay_out, predicting_places
from speechscale.train.objective import Objective, Precision
from speechscale.train.parallel import SOLO, Group
from speechscale.train.preference_data import FRAME, Pair

FORMAT, VERSION = "speechscale.reference", "1"
ROWS_AT_ONCE = 16
PROBED_PAIRS = 4
PROBE_NATS = 0.01
"""Per token, that two computations of one model may differ (bf16 on another machine); another model differs by more."""


class Packed(NamedTuple):
    """Rows, the flat places of them that predict completions, and the sequence that each such target belongs to."""

    batch: Batch
    places: Int[np.ndarray, " targets"]
    owners: Int[np.ndarray, " targets"]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Both sides of some pairs as documents: 2i is prompt + chosen of pair i, 2i + 1 prompt + rejected.

    Args:
        bodies: ids without the framing `<eos>`. prompts: of each, how many ids are given and so not scored.
        score_end: the closing `<eos>` belongs to the completion.
    """

    bodies: Ragged
    prompts: Int[np.ndarray, " sequences"]
    eos_id: int
    score_end: bool

    @classmethod
    def of(cls, pairs: Sequence[Pair], eos_id: int, score_end: bool) -> Sequences:
        sides = [(pair.prompt, completion) for pair in pairs for completion in (pair.chosen, pair.rejected)]
        flat = np.concatenate([part for side in sides for part in side]).astype(np.int32)
        lengths = [len(prompt) + len(completion) for prompt, completion in sides]
        prompts = np.array([len(prompt) for prompt, _ in sides], np.int64)
        return cls(Ragged(flat, offsets(lengths)), prompts, eos_id, score_end)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def targets(self) -> Int[np.ndarray, " sequences"]:
        """Scored tokens of each."""
        return self.bodies.lengths - self.prompts + self.score_end

    def take(self, pairs: Int[np.ndarray, " chosen"]) -> Sequences:
        """Both sides of the chosen pairs, in the given order."""
        own = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
        return Sequences(gather_rows(self.bodies, own), self.prompts[own], self.eos_id, self.score_end)

    def pack(self, context: int, batch_rows: int | None = None) -> list[Packed]:
        """Pack all sequences into rows of `context` tokens, documents apart, `batch_rows` rows at once or all."""
        ids = IdTables(self.eos_id, np.zeros(1 + max(self.eos_id, int(self.bodies.flat.max())), np.int8))
        block = pack_block(self.bodies, ids, context)
        lengths = self.bodies.lengths
        documents = np.searchsorted(self.bodies.offsets[:-1] + FRAME * np.arange(len(self)), block.slices.begins)
        assert np.array_equal(block.slices.lengths, lengths[documents] + FRAME), "a pair longer than the context"
        batches = []
        for first in range(0, len(block), batch_rows or len(block)):
            rows = range(first, min(len(block), first + (batch_rows or len(block))))
            batch = assemble([Row(block, number, 0) for number in rows], context, self.eos_id)
            own = documents[block.slices.rows[rows.start] : block.slices.rows[rows.stop]]
            owners = np.repeat(own, lengths[own] + 1)
            number = ragged_arange(np.zeros(len(own), np.int64), lengths[own] + 1)
            scored = (number >= self.prompts[owners]) & (self.score_end | (number < lengths[owners]))
            batches.append(Packed(batch, predicting_places(batch.segments)[scored], owners[scored]))
        return batches

    def sha256(self) -> str:
        """Of everything that decides their log-probabilities but the model."""
        digest = hashlib.sha256(f"{self.eos_id} {self.score_end}".encode())
        for array in (*self.bodies, self.prompts):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return digest.hexdigest()


@torch.no_grad()
def log_probs(
    objective: Objective,
    sequences: Sequences,
    context: int,
    *,
    precision: Precision,
    attention: Attention = "auto",
    rows_at_once: int = ROWS_AT_ONCE,
    group: Group = SOLO,
    watch: Watch | None = None,
) -> Float64[np.ndarray, " sequences"]:
    """Log-probability of each completion given its prompt, in nats, summed over its tokens.

    Args:
        group: processes that share the work; each gets all numbers, the same for any number of processes.
    """
    device = objective.model.device
    kernel = choose_kernel(attention, device, precision)
    packed = sequences.pack(context, rows_at_once)
    sums = np.zeros(len(sequences))
    began, done = time.perf_counter(), 0
    for number in range(-(-len(packed) // group.world)):
        # Sharded parameters are gathered by all processes together, so one without rows of its own takes the last.
        own = number * group.world + group.rank
        batch, places, owners = packed[min(own, len(packed) - 1)]
        rows = lay_out(batch, places, 1.0, kernel=kernel, device=device)
        nats = objective(rows, precision).nats.double().cpu().numpy()
        if own < len(packed):
            np.subtract.at(sums, owners, nats)
        done += len(np.unique(owners)) * group.world
        if watch is not None and group.leads:
            wall_s = time.perf_counter() - began
            watch(Progress(items_done=min(done, len(sequences)), items_total=len(sequences), wall_s=wall_s))
    if isinstance(objective, FSDPModule):
        objective.reshard()  # only a backward pass does so by itself; optimizer and checkpoints know shards only
    return np.sum(group.gather(sums), axis=0)


def reference_log_probs(
    objective: Objective,
    sets: Mapping[str, Sequences],
    context: int,
    *,
    precisions: Mapping[str, Precision],
    file: Path | None = None,
    **how: Any,
) -> dict[str, Float64[np.ndarray, " sequences"]]:
    """Log-probabilities of every completion of each set under the model as it is now; from `file` if it has them.

    Args:
        file: read if it belongs to these pairs, else written. Called by all processes, which share it.
        how: as for `log_probs`.

    Raises:
        DataError: the file was made with another model.
    """
    group: Group = how.get("group", SOLO)
    identity = {name: f"{sequences.sha256()} {precisions[name]}" for name, sequences in sets.items()}
    kept = group.gather(_read(file, identity) if group.leads and file is not None else None)[0]
    if kept is not None:
        assert file is not None
        _probe(objective, sets, context, precisions, kept, file, how)
        return kept
    made = {
        name: log_probs(objective, sequences, context, precision=precisions[name], **how)
        for name, sequences in sets.items()
    }
    if group.leads and file is not None:
        with complete_file(file) as draft:
            metadata = {"format": FORMAT, "format_version": VERSION, "sha256": _sha256(made)} | {
                f"set.{name}": value for name, value in identity.items()
            }
            save_file(made, str(draft), metadata=metadata)
    return made


def _read(file: Path, identity: Mapping[str, str]) -> dict[str, Float64[np.ndarray, " sequences"]] | None:
    """What the file holds, if it is whole and of these pairs."""
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="np") as opened:
            metadata = opened.metadata() or {}
            held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{file}: not readable ({error}); the reference is computed anew", stacklevel=2)
        return None
    if (metadata.get("format"), metadata.get("format_version")) != (FORMAT, VERSION):
        warnings.warn(f"{file}: not a {FORMAT} version {VERSION}; the reference is computed anew", stacklevel=2)
        return None
    if metadata.get("sha256") != _sha256(held):
        warnings.warn(f"{file}: differs from its checksum; the reference is computed anew", stacklevel=2)
        return None
    same = {name.removeprefix("set."): value for name, value in metadata.items() if name.startswith("set.")}
    return held if same == dict(identity) else None


def _probe(
    objective: Objective,
    sets: Mapping[str, Sequences],
    context: int,
    precisions: Mapping[str, Precision],
    kept: Mapping[str, Float[np.ndarray, " sequences"]],
    file: Path,
    how: Mapping[str, Any],
) -> None:
    name, sequences = next(iter(sets.items()))
    few = sequences.take(np.arange(min(PROBED_PAIRS, len(sequences) // 2)))
    now = log_probs(objective, few, context, precision=precisions[name], **{**how, "watch": None})
    apart = float((np.abs(now - kept[name][: len(few)]) / few.targets).max())
    if not apart <= PROBE_NATS:
        raise DataError(
            f"{file}: log-probabilities of another model, {apart:.3g} nats per token apart; give the model that tuning "
            "began with, or delete the file to begin with this one"
        )


def _sha256(tensors: Mapping[str, Float[np.ndarray, " sequences"]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name], "<f8").tobytes())
    return digest.hexdigest()
