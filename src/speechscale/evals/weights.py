"""A checksum of weights.

Enters: a model. Leaves: a hash that is the same wherever and in whatever files the weights lie.
The one decision worth knowing: names, types and shapes are hashed with the bytes, buffers too.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch


def weights_sha256(model: Any) -> str:
    """Checksum of a model's state, by name."""
    digest = hashlib.sha256()
    state: dict[str, torch.Tensor] = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
