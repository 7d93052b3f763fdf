"""Train with speechscale, in lockstep: python ours.py SPEC.json (written by benchmarks/train.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lockstep import Lockstep

from speechscale.model.sizes import Size
from speechscale.model.slm import new_model
from speechscale.tokens.packing import Batch, pack_documents
from speechscale.train.loop import Hooks, Runtime, StepReport, TrainConfig, train


def batches_of(spec: dict[str, Any]) -> Iterator[Batch]:
    """Whole batches of the documents, again and again."""
    with np.load(spec["documents"]) as saved:
        documents = np.split(saved["flat"], saved["borders"])
    bodies = [document[1:-1] for document in documents]  # packing puts <eos> around them itself
    packed = pack_documents(
        bodies, ["speech"] * len(bodies), spec["context"], eos_id=spec["eos_id"], batch_rows=spec["rows"]
    )
    return cycle([batch for batch in packed if len(batch.tokens) == spec["rows"]])


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    lockstep = Lockstep(spec["device"])
    torch.set_num_threads(spec["threads"])
    model = new_model(Size(**spec["size"]), spec["vocab"], spec["context"], seed=0).to(spec["device"])
    params = sum(p.numel() for p in model.parameters())
    modality = np.ones(spec["vocab"], np.int8)
    modality[: spec["eos_id"] + 1] = 2

    def on_step(report: StepReport) -> None:
        lockstep.pause(targets=sum(report.targets.values()), loss=report.loss, params=params)

    train(
        model,
        batches_of(spec),
        TrainConfig(
            tokens=10**12,  # the race ends first
            batch_rows=spec["rows"],
            context=spec["context"],
            learning_rate=spec["learning_rate"],
            warmup_fraction=0.0,
            precision=spec["precision"],
        ),
        modality=modality,
        validation={},
        runtime=Runtime(compile=spec["compile"], recompute=spec["recompute"]),
        hooks=Hooks(on_step=on_step),
    )


if __name__ == "__main__":
    main()
