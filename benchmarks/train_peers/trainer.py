"""Train with the trainers of others, in lockstep: python trainer.py hf|slamkit SPEC.json (see benchmarks/train.py).

hf needs torch, transformers and accelerate; slamkit also needs slamkit and what it imports. Nothing of speechscale.
Rows are what these trainers make of documents: cut at the context, one piece a row, padded to the longest of a batch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lockstep import Lockstep
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

PAD_ID, IGNORED = 0, -100


class Collator:
    """Pads pieces and counts what is predicted: labels but the first of each row, as the loss shifts them."""

    def __init__(self) -> None:
        self.targets: list[int] = []

    def __call__(self, pieces: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.as_tensor(piece["input_ids"]) for piece in pieces]
        tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD_ID)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        labels = tokens.masked_fill(mask == 0, IGNORED)
        self.targets.append(int((labels[:, 1:] != IGNORED).sum()))
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


class Pauses(TrainerCallback):
    """Waits after each step. Batches are counted when they are made, which may be some steps earlier."""

    def __init__(self, lockstep: Lockstep, collator: Collator, params: int) -> None:
        self.lockstep, self.collator, self.params = lockstep, collator, params

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.lockstep.pause(targets=self.collator.targets[state.global_step - 1], params=self.params)


def pieces_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    with np.load(spec["documents"]) as saved:
        documents = np.split(saved["flat"], saved["borders"])
    context = spec["context"]
    cut = [document[i : i + context] for document in documents for i in range(0, len(document), context)]
    return [{"input_ids": piece.tolist()} for piece in cut if len(piece) > 1]


def make(kind: str, spec: dict[str, Any]) -> tuple[Any, type[Trainer], type[TrainingArguments], dict[str, Any]]:
    if kind == "hf":
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(spec["model"]))
        options = {"gradient_checkpointing": spec["recompute"], "torch_compile": spec["compile"]}
        return model, Trainer, TrainingArguments, options
    from slamkit.model import UnitLM, UnitLMConfig
    from slamkit.trainer import SLAMTrainer, SLAMTrainingArguments

    config = UnitLMConfig(base_model_name=spec["model"], vocab_size=spec["vocab"], twist_init=False, use_cache=False)
    return UnitLM(config), SLAMTrainer, SLAMTrainingArguments, {}


def main() -> None:
    kind, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    lockstep = Lockstep(spec["device"])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    model, trainer, arguments, options = make(kind, spec)
    collator = Collator()
    params = sum(p.numel() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        trainer(
            model=model,
            args=arguments(
                output_dir=folder,
                max_steps=100_000,  # the race ends first
                per_device_train_batch_size=spec["rows"],
                dataloader_drop_last=True,
                learning_rate=spec["learning_rate"],
                lr_scheduler_type="constant",
                max_grad_norm=1.0,
                use_cpu=spec["device"] == "cpu",
                bf16=spec["precision"] == "bf16",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=pieces_of(spec),
            data_collator=collator,
            callbacks=[Pauses(lockstep, collator, params)],
        ).train()


if __name__ == "__main__":
    main()
