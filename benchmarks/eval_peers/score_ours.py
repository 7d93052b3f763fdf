"""Score pairs with speechscale, in lockstep: python score_ours.py SPEC.json (see benchmarks/evals.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from speechscale.evals.reading import Reader
from speechscale.evals.score import score_stream
from speechscale.tokens.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parents[1] / "train_peers"))
sys.path.insert(0, str(Path(__file__).parent))
from lockstep import Lockstep
from score_pairs import chunks_of


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lockstep = Lockstep("cpu")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(spec["model"])).eval()
    vocabulary = Vocabulary.textless(spec["units"])
    reader = Reader(model, vocabulary, spec["precision"], compiled=spec["compiled"])
    params = sum(p.numel() for p in model.parameters())
    while True:
        for chunk in chunks_of(spec):
            ids = [np.append(0, side + 1) for pair in chunk for side in pair]
            found = score_stream(model, ids, [1] * len(ids), reader=reader, share_opening=spec["share"])
            assert sum(1 for _ in found) == len(ids)
            lockstep.pause(pairs=len(chunk), params=params)


if __name__ == "__main__":
    main()
