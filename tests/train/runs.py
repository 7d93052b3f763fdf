"""Small trainings for the tests of processes and checkpoints; run alone or, by `run_processes`, on two."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.tokens.packing import Batch, pack_documents
from speechscale.train.adapt import Adaptation, adapt
from speechscale.train.checkpoints import Checkpoints
from speechscale.train.config import Runtime, TrainConfig
from speechscale.train.loop import Hooks, TrainResult, train
from speechscale.train.parallel import Group, full_state, open_group, save_stock
from speechscale.train.step import StepReport
from tests.train.conftest import CONTEXT, ROWS, TEXT, UNITS, VOCAB, documents


def table() -> np.ndarray:
    kinds = np.full(VOCAB, 2, np.int8)
    kinds[1:TEXT] = 0
    kinds[TEXT : TEXT + UNITS] = 1
    return kinds


def all_batches() -> list[Batch]:
    packed = pack_documents(*documents(600, seed=0), CONTEXT, batch_rows=ROWS)
    return [batch for batch in packed if len(batch.tokens) == ROWS]


def held_out() -> list[Batch]:
    bodies, streams = documents(90, seed=1)
    chosen = [body for body, stream in zip(bodies, streams, strict=True) if stream == "speech"]
    return pack_documents(chosen, ["speech"] * len(chosen), CONTEXT, batch_rows=ROWS)


def share(group: Group, skip: int = 0, few: int | None = None) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """This process' rows, with the number of batches behind each."""
    rows = ROWS // group.world
    cut = slice(group.rank * rows, (group.rank + 1) * rows)
    stream = all_batches() if few is None else all_batches()[:few] * 200
    for number, batch in enumerate(stream[skip:], skip + 1):
        yield (
            Batch(batch.tokens[cut], batch.segments[cut], batch.positions[cut], batch.stream[cut]),
            {"batches": number},
        )


def train_small(
    group: Group,
    *,
    tokens: int = 2_000,
    parallel: Literal["ddp", "fsdp"] = "ddp",
    precision: Literal["fp32", "bf16"] = "fp32",
    trains: Literal["all", "rows", "lora"] = "all",
    rows_first_tokens: int = 0,
    folder: Path | None = None,
    stop_after: int | None = None,
    hooks: Hooks | None = None,
    few: int | None = None,
    **runtime: Any,
) -> tuple[TrainResult, Any]:
    """Train 0.05M; with a folder, save there and go on from what is there.

    Args:
        few: so many batches over and over, so that the model gets worse on others.
    """
    model = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=0)
    model = adapt(model, Adaptation(trains=trains, rank=4), seed=0)
    config = TrainConfig(
        tokens=tokens,
        batch_rows=ROWS,
        context=CONTEXT,
        learning_rate=1e-2,
        precision=precision,
        checks=3,
        rows_first_tokens=rows_first_tokens,
    )
    seen: list[int] = []

    def count(report: StepReport) -> None:
        seen.append(report.step)

    def stop() -> str:
        return "enough for now" if stop_after is not None and len(seen) >= stop_after and group.leads else ""

    wanted: dict[str, Any] = {
        "modality": table(),
        "validation": {"select": held_out(), "test": held_out()[:2]},
        "runtime": Runtime(parallel=parallel, **runtime),
        "hooks": hooks or Hooks(on_step=count, stop=stop),
        "group": group,
    }
    if folder is None:
        return train(model, share(group, few=few), config, **wanted), model
    with Checkpoints(folder, group) as saves:
        start = saves.latest()
        batches = share(group, start.state["data"]["batches"] if start else 0, few)
        return train(model, batches, config, checkpoints=saves, start=start, **wanted), model


def summary(result: TrainResult) -> dict[str, Any]:
    """What JSON can hold of a result."""
    return {
        "losses": [report.loss for report in result.history],
        "norms": [report.grad_norm for report in result.history],
        "steps": [report.step for report in result.history],
        "by_modality": [dict(report.losses) for report in result.history],
        "final": result.final["test"].speech if result.final else None,
        "best": result.best["test"].speech if result.best else None,
        "se": result.final["select"].speech_se if result.final else None,
        "checks": [check.losses["select"].mean for check in result.checks],
        "tokens": result.tokens_seen,
        "targets": {stream: dict(kinds) for stream, kinds in result.targets.items()},
        "stopped": result.stopped,
    }


def curve(group: Group, folder: str = "", stock: str = "", **settings: Any) -> dict[str, Any]:
    """A training of this process, summed up."""
    result, model = train_small(group, folder=Path(folder) if folder else None, **settings)
    if stock:
        save_stock(model, Path(stock), group)
    norm = sum(float(tensor.double().square().sum()) for tensor in full_state(model).values())
    return summary(result) | {"weights": norm}


def curves(trainings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Several trainings one after the other, by name: starting processes takes longer than training."""
    with open_group("cpu", timeout_s=60) as group:
        return {name: curve(group, **settings) for name, settings in trainings.items()}


def one_dies(how: str) -> dict[str, Any]:
    """Rank 1 ends in the third step; the other says what it heard, and how long it waited."""
    with open_group("cpu", timeout_s=30) as group:
        began: list[float] = []

        def watch() -> str:
            began.append(time.monotonic())
            if group.rank == 1 and len(began) == 3:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise SystemExit(7)
            return ""

        try:
            train_small(group, hooks=Hooks(stop=watch))
        except ConnectionError as error:
            waited = time.monotonic() - began[-1]
            Path(os.environ["HEARD"]).write_text(f"{waited:.1f} {error}")
            raise
        return {}
