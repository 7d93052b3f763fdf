"""A table of runs, whoever trained them: N, D, C, loss, metrics, and what else is known of each run.

Enters: arrays or a read file. Leaves: `RunTable`, checked, with what was left out and why.
The one decision worth knowing: `params` is N as the table's FLOP convention counts it, so C = 6 N D holds in every
table; a law and its optimum are therefore always in that same N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from speechscale.errors import DataError
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN

Role = Literal[
    "params_total",
    "params_non_embedding",
    "unique_tokens",
    "epochs",
    "tokens_speech",
    "tokens_text",
    "tokens_interleaved",
    "warm",
    "text_lm_tokens",
    "text_lm_flops",
    "budget_flops",
    "learning_rate",
    "batch_tokens",
    "warmup_tokens",
    "schedule",
    "planned_tokens",
    "tokenizer",
    "seed",
    "run",
    "loss_se",
]
"""What else a column may be. `run` names the training run that a row is a checkpoint of; `planned_tokens` is where the
run's schedule ends; `tokenizer` names the units or vocabulary that the loss counts; `warm` is 1 for a TextLM start."""
ROLES: tuple[Role, ...] = get_args(Role)
TEXT_ROLES: tuple[Role, ...] = ("schedule", "tokenizer", "run")
"""Roles that hold words; all others hold numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that was left out. row: 1 is the first data row of the file."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """Runs, one entry per row and array.

    Args:
        params: N, tokens: D, flops: C = 6 N D. loss: nats per token, None where the table has only metrics.
        metrics: shares (0 to 1), higher is better; NaN where a run was not scored.
        groups: the arm, corpus or study of each run, all "" without one.
        extras: further columns by role, numbers as floats (NaN unknown), words as object arrays ("" unknown).
        convention: how N and C are counted, in words. flops_name: its short name ("6nd" when nobody said more).
        echoes: what was understood of the columns and their units, to be printed. skipped: rows left out, why.
        rows_read: rows of the file; always len(self) + len(skipped).
    """

    name: str
    params: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]
    flops: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"] | None
    metrics: Mapping[str, Float[np.ndarray, " runs"]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    extras: Mapping[Role, np.ndarray] = field(default_factory=dict)
    convention: str = "N as given, C = 6 N D"
    flops_name: str = "6nd"
    echoes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    rows_read: int = 0

    def __post_init__(self) -> None:
        rows = len(self.params)
        columns: dict[str, Any] = {"tokens": self.tokens, "flops": self.flops, "loss": self.loss, "groups": self.groups}
        extras = {str(role): values for role, values in self.extras.items()}
        for name, values in {**columns, **self.metrics, **extras}.items():
            if values is not None and len(values) != rows:
                raise DataError(f"table {self.name}: {len(values)} entries of {name} for {rows} runs: need one each")

    def __len__(self) -> int:
        return len(self.params)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the groups, in order of appearance."""
        return tuple(dict.fromkeys(self.groups))

    def numbers(self, role: Role) -> Float[np.ndarray, " runs"]:
        """A numeric extra, all NaN where the table has none."""
        return np.asarray(self.extras[role], float) if role in self.extras else np.full(len(self), np.nan)

    def words(self, role: Role) -> tuple[str, ...]:
        """A textual extra, all "" where the table has none."""
        return tuple(map(str, self.extras[role])) if role in self.extras else ("",) * len(self)

    def subset(self, keep: Bool[np.ndarray, " runs"]) -> RunTable:
        """The rows where `keep` is true; `skipped` and `rows_read` stay those of the file."""
        keep = np.asarray(keep, bool)
        return replace(
            self,
            params=self.params[keep],
            tokens=self.tokens[keep],
            flops=self.flops[keep],
            loss=None if self.loss is None else self.loss[keep],
            metrics={name: values[keep] for name, values in self.metrics.items()},
            groups=tuple(g for g, k in zip(self.groups, keep, strict=True) if k),
            extras={role: values[keep] for role, values in self.extras.items()},
        )

    def arm(self, name: str) -> RunTable:
        """The rows of one group.

        Raises:
            DataError: no such group.
        """
        if name not in self.groups:
            raise DataError(f"table {self.name}: no group '{name}'; it has {', '.join(self.arms)}")
        part = self.subset(np.array([g == name for g in self.groups]))
        return replace(part, name=f"{self.name}: {name}")

    def each_arm(self) -> Iterator[tuple[str, RunTable]]:
        """Every group with its rows."""
        for name in self.arms:
            yield name, self.arm(name) if len(self.arms) > 1 else self

    def with_loss(self) -> RunTable:
        """The rows that have a loss.

        Raises:
            DataError: none has.
        """
        if self.loss is None or not np.isfinite(self.loss).any():
            raise DataError(f"table {self.name}: no losses; name their column with --loss, or fit metrics only")
        return self.subset(np.isfinite(self.loss))


def run_table(
    N: Sequence[float] | Float[np.ndarray, " runs"],
    D: Sequence[float] | Float[np.ndarray, " runs"],
    loss: Sequence[float] | Float[np.ndarray, " runs"] | None = None,
    *,
    name: str = "runs",
    metrics: Mapping[str, Any] | None = None,
    groups: Sequence[str] | None = None,
    extras: Mapping[Role, Any] | None = None,
) -> RunTable:
    """Make a table from arrays. Example: run_table([1e6, 1e7], [1e8, 1e9], [3.1, 2.8])

    Raises:
        DataError: different lengths, or N or D that are not finite and above 0.
    """
    params, tokens = np.asarray(N, float), np.asarray(D, float)
    if params.shape != tokens.shape or params.ndim != 1:
        raise DataError(f"table {name}: {params.shape} sizes and {tokens.shape} token counts: need one each per run")
    for label, values in (("N", params), ("D", tokens)):
        bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
        if len(bad):
            raise DataError(f"table {name}: {label} of run {bad[0]} is {values[bad[0]]}: must be finite and above 0")
    unknown = set(extras or ()) - set(ROLES)
    if unknown:
        raise DataError(f"table {name}: unknown roles {', '.join(sorted(unknown))}; allowed: {', '.join(ROLES)}")
    return RunTable(
        name=name,
        params=params,
        tokens=tokens,
        flops=FLOPS_PER_PARAM_TOKEN * params * tokens,
        loss=None if loss is None else np.asarray(loss, float),
        metrics={key: np.asarray(values, float) for key, values in (metrics or {}).items()},
        groups=tuple(groups) if groups is not None else ("",) * len(params),
        extras={
            role: np.asarray(values, object if role in TEXT_ROLES else float) for role, values in (extras or {}).items()
        },
        rows_read=len(params),
    )
