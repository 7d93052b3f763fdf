"""A small corpus of three streams for the tests of training."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.tokens.packing import Batch, pack_documents

TEXT, UNITS, CONTEXT, ROWS = 40, 30, 48, 4
VOCAB = TEXT + UNITS + 2


def documents(count: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Random walks through text ids, unit ids, or both with markers."""
    rng = np.random.default_rng(seed)
    bodies, streams = [], []
    for number in range(count):
        stream = ("speech", "text", "interleaved")[number % 3]
        length = int(rng.integers(4, 40))
        text = 1 + np.cumsum(rng.integers(0, 3, length)) % (TEXT - 1)
        units = TEXT + np.cumsum(rng.integers(0, 3, length)) % UNITS
        body = {"speech": units, "text": text}.get(stream)
        if body is None:
            body = np.concatenate([[VOCAB - 2], units[: length // 2], [VOCAB - 1], text[: length // 2]])
        bodies.append(body)
        streams.append(stream)
    return bodies, streams


@pytest.fixture(scope="session")
def modality() -> np.ndarray:
    table = np.full(VOCAB, 2, np.int8)
    table[1:TEXT] = 0
    table[TEXT : TEXT + UNITS] = 1
    return table


@pytest.fixture(scope="session")
def batches() -> list[Batch]:
    packed = pack_documents(*documents(600, seed=0), CONTEXT, batch_rows=ROWS)
    return [batch for batch in packed if len(batch.tokens) == ROWS]


@pytest.fixture(scope="session")
def speech() -> list[Batch]:
    bodies, streams = documents(90, seed=1)
    chosen = [body for body, stream in zip(bodies, streams, strict=True) if stream == "speech"]
    return pack_documents(chosen, ["speech"] * len(chosen), CONTEXT, batch_rows=ROWS)
