"""What a run does: its recipe, and what may change without changing the numbers.

Enters: plain values. Leaves: `TrainConfig`, `Runtime`, an optimizer.
The one decision worth knowing: `TrainConfig` holds what can change a result and belongs to the fingerprint of a run;
`Runtime` holds the rest (how a batch is cut into parts, kernels, how often to save), and may differ when a run goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from speechscale.errors import DataError
from speechscale.model.anatomy import DROPOUTS, causal_lm, context_limit, embedding_of, output_layer_of
from speechscale.train.attention import Attention
from speechscale.train.objective import Objective, Precision, compile_blocks, recompute_blocks
from speechscale.train.parallel import Group, Parallel, spread
from speechscale.train.schedule import Schedule, decay_start, learning_rate_share

BF16_FROM_PARAMS, AMX_BF16_FROM_PARAMS = 80_000, 300_000
"""Body parameters from which bf16 autocast was measured faster than fp32, on a CPU with avx512_bf16 (AMD) and on one
with AMX, whose fp32 is faster in proportion (docs/train.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The recipe of a run.

    Args:
        tokens: budget of target tokens. batch_rows, context: shape of every batch, of all processes together.
        learning_rate: peak. final_lr_fraction: of the peak, reached with the last token.
        warmup_fraction: of the tokens; or warmup_tokens, which wins. schedule: see `learning_rate_share`.
        decay_fraction: of the tokens, for "wsd". weight_decay: on matrices, not on norms and biases.
        rows_first_tokens: until so many, only embedding and head learn.
        clip_norm: largest norm of the gradient. z_loss: see `Objective`.
        precision: "auto" as in `resolve_precision`; weights stay fp32.
        checks: validations on the set "select", evenly spaced, the last one at the end.
        select_on: modality whose loss on "select" chooses the best checkpoint.

    Raises:
        DataError: a value out of range.
    """

    tokens: int
    batch_rows: int
    context: int
    learning_rate: float
    final_lr_fraction: float = 0.1
    warmup_fraction: float = 0.02
    warmup_tokens: int | None = None
    rows_first_tokens: int = 0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip_norm: float = 1.0
    z_loss: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    schedule: Schedule = "cosine"
    decay_fraction: float = 0.2
    checks: int = 8
    select_on: Literal["speech", "text"] = "speech"

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_rows", "learning_rate", "clip_norm", "checks", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"train: {name} = {getattr(self, name)}; it must be above 0")
        for name in ("final_lr_fraction", "warmup_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"train: {name} = {getattr(self, name)}; it must lie in 0..1")
        for name in ("weight_decay", "z_loss", "rows_first_tokens"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"train: {name} = {getattr(self, name)}; it must be 0 or above")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise DataError(f"train: betas = {self.betas}; each must lie in 0..1, below 1")
        stable = decay_start(self.tokens, self.decay_fraction) if self.schedule == "wsd" else self.tokens
        if self.warmup > stable:
            ends = "falls again" if self.schedule == "wsd" else "ends"
            raise DataError(
                f"train: the warm-up takes {self.warmup:,.0f} tokens, the rate {ends} after {stable:,}; lower "
                "warmup_tokens or raise tokens"
            )

    @property
    def warmup(self) -> float:
        """Tokens of the warm-up."""
        return self.warmup_fraction * self.tokens if self.warmup_tokens is None else self.warmup_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How a run is carried out; none of it changes what is computed beyond rounding.

    Args:
        parallel: of several processes. attention: kernel. compile: torch.compile each block.
        micro_rows: rows of one forward pass on one process; None takes its whole share of the batch.
        recompute: keep no activations inside blocks, compute them again (gradient checkpointing).
        log_every: steps between two lines of the log.
        save_every_tokens, save_every_s: distance of checkpoints; None saves at the end only. save_best: also at each
            check that is the best so far, where it then stays; the best weights need no place in memory.
        max_s: wall time after which the run ends early, with its validation.
        dump: folder for the batch that made a loss not finite.
        save_before, stop_before: token counts; the last state not beyond each is saved, the run stops at the latter
            (trunks, see docs/train.md).
    """

    parallel: Parallel = "ddp"
    attention: Attention = "auto"
    compile: bool = False
    micro_rows: int | None = None
    recompute: bool = False
    log_every: int = 1
    save_every_tokens: int | None = None
    save_every_s: float | None = None
    save_best: bool = False
    max_s: float | None = None
    dump: Path | None = None
    save_before: tuple[int, ...] = ()
    stop_before: int | None = None

    def apply(self, objective: Objective, context: int, group: Group) -> Any:
        """Make an objective ready for rows of `context` tokens; the module to call, as wrapped for several processes.

        Raises:
            DataError: rows longer than the window of the model's layers.
        """
        objective.require_context(context)
        if self.recompute:
            recompute_blocks(objective.model)
        call = spread(objective, group, self.parallel)
        if self.compile:
            compile_blocks(objective.model)
        return call

    def parts(self, config: TrainConfig, group: Group) -> int:
        """Forward passes of one step on each process.

        Raises:
            DataError: rows that cannot be shared out evenly.
        """
        share, rest = divmod(config.batch_rows, group.world)
        if rest or not share:
            raise DataError(
                f"train: batch_rows = {config.batch_rows} cannot be shared out to {group.world} processes evenly; take "
                f"{max(1, share) * group.world} or {(share + 1) * group.world}, or another number of processes"
            )
        if self.micro_rows is None:
            return 1
        if self.micro_rows < 1 or share % self.micro_rows:
            divisors = [n for n in range(1, share + 1) if share % n == 0]
            raise DataError(
                f"train: micro_rows = {self.micro_rows} does not divide the {share} rows of each process; take one of "
                f"{', '.join(map(str, divisors))}"
            )
        return share // self.micro_rows


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], model: Any) -> Precision:
    """Turn "auto" into what was measured faster: on a GPU bf16; on a CPU that multiplies bf16 natively bf16 for bodies
    of some size, else fp32."""
    if precision != "auto":
        return precision
    if model.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    rows = {id(p): p.numel() for layer in (embedding_of(model), output_layer_of(model)) for p in layer.parameters()}
    body = sum(p.numel() for p in model.parameters()) - sum(rows.values())
    return "bf16" if body >= bf16_from_params() else "fp32"


def bf16_from_params() -> float:
    """Body parameters from which bf16 is faster on this CPU; infinite where it is not native."""
    if not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        return math.inf
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return AMX_BF16_FROM_PARAMS if amx else BF16_FROM_PARAMS


def make_optimizer(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only, over the parameters that are trained."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, seen: int) -> float:
    """Set and return the rate of the step that ends at `seen` of `config.tokens` (pairs, in preference tuning)."""
    share = learning_rate_share(
        seen,
        config.tokens,
        schedule=config.schedule,
        warmup_tokens=config.warmup,
        final_fraction=config.final_lr_fraction,
        decay_fraction=config.decay_fraction,
    )
    for group in optimizer.param_groups:
        group["lr"] = share * config.learning_rate
    return share * config.learning_rate


def require_fit(model: Any, rows: int, config: TrainConfig) -> None:
    """Raise DataError where a model cannot be trained on such rows, or not repeatably."""
    random = [name for name in DROPOUTS if getattr(causal_lm(model).config, name, None)]
    if random:
        raise DataError(
            f"train: this model drops activations at random ({random[0]}), and nothing in a run may be random: load it "
            "with load_text_lm or load_model, which switch that off"
        )
    limit = context_limit(model)
    if limit.hard and config.context > limit.tokens:
        raise DataError(
            f"train: context {config.context} is longer than the {limit.tokens} positions this model has learned; "
            f"set context to {limit.tokens} or less"
        )
    if embedding_of(model).weight.shape[0] != rows:
        raise DataError(
            f"train: a model of {embedding_of(model).weight.shape[0]} ids and a vocabulary of {rows}; they must be "
            "equal (model.slm.extend adds rows)"
        )
