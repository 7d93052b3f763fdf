"""Score pairs as others do, in lockstep: python score_pairs.py slamkit|transformers SPEC.json.

See benchmarks/evals.py.

slamkit needs itself and what it imports; its feature extractor is replaced by one that hands out stored units, so what
is timed is its own loading, tokenizing and scoring. transformers is the loop of a careful user: batches of 8, padded on
the right, fp32 log-softmax, nothing sorted, nothing shared. Nothing of speechscale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train_peers"))
from lockstep import Lockstep

BATCH = 8


def chunks_of(spec: dict[str, Any]) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Pairs of units, in turns."""
    with np.load(spec["pairs"]) as saved:
        rows = np.split(saved["flat"], saved["borders"])
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    return [pairs[i : i + spec["turn"]] for i in range(0, len(pairs), spec["turn"])]


class Slamkit:
    """slamkit's modelling metric on a Qwen2 of the same shape with its own 502 ids."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import slamkit.model as slm
        from slamkit.tokeniser.unit_tokeniser import UnitTokeniser

        config = slm.UnitLMConfig(base_model_name=spec["model"], vocab_size=502, twist_init=False, use_cache=False)
        self.model = slm.SpeechLM(slm.UnitLM(config), UnitTokeniser(Units()), device="cpu")
        self.params = sum(p.numel() for p in self.model.model.parameters())

    def __call__(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
        from slamkit.metric.modelling_metric import modelling_metric

        data = [(*(torch.from_numpy(side).float() for side in pair), *map(len, pair)) for pair in pairs]
        with torch.inference_mode():
            modelling_metric(self.model, data, None, True, BATCH, num_workers=0, pin_memory=False)


class Units(torch.nn.Module):
    """A feature extractor for waveforms that hold one unit per sample."""

    sample_rate = 16000

    def extract(self, wav: torch.Tensor, lens: torch.Tensor | None = None) -> list[np.ndarray]:
        sizes = [wav.shape[1]] * len(wav) if lens is None else lens
        return [row[: int(n)] for row, n in zip(wav.long().numpy(), sizes, strict=True)]

    def get_unit_duration(self) -> float:
        return 0.04


class Transformers:
    """`AutoModelForCausalLM` in batches of 8."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(spec["model"])).eval()
        self.params = sum(p.numel() for p in self.model.parameters())

    def __call__(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
        for first in range(0, len(pairs), BATCH):
            for side in (0, 1):
                self.means([torch.from_numpy(np.append(0, pair[side] + 1)) for pair in pairs[first : first + BATCH]])

    @torch.inference_mode()
    def means(self, rows: list[torch.Tensor]) -> torch.Tensor:
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        kept = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)[:, 1:]
        logprobs = self.model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        return (logprobs.gather(2, ids[:, 1:, None])[..., 0] * kept).sum(1) / kept.sum(1)


def main() -> None:
    kind, file = sys.argv[1], Path(sys.argv[2])
    spec = json.loads(file.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lockstep = Lockstep("cpu")
    scorer = Slamkit(spec) if kind == "slamkit" else Transformers(spec)
    while True:
        for chunk in chunks_of(spec):
            scorer(chunk)
            lockstep.pause(pairs=len(chunk), params=scorer.params)


if __name__ == "__main__":
    main()
