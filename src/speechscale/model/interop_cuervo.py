"""Cuervo & Marxer's released suite (`tiagoCuervo/gslm-scaling-...`) as stock Llama models.

Enters: a folder with their config.json (`model_type` "slm") and safetensors. Leaves: a plan for `write_stock`.
The one decision worth knowing: their rotary positions turn neighboring pairs of a head (0 and 1, 2 and 3, ...), Llama's
turn pairs half a head apart, so the rows of queries and keys are moved; the sums are the same numbers in another order,
and logits agree up to rounding, not to the last bit.

Source: the public description of the repository tiagoCuervo/slm_scaling (config fields, names of weights, sizes).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.model.interop_stock import Ids, Plan, stock_config, units_alone
from speechscale.model.interop_weights import REMEDY

CUERVO_TYPE = "slm"
ROPE_THETA = 10_000.0
"""Fixed in their model."""
NAMES = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "norm.weight": "model.norm.weight",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
"""Name in their files -> name in Llama; both have the number of the layer in front where there is one."""
LAYER = re.compile(r"layers\.(\d+)\.(.+)")
FIELDS: dict[str, Any] = {
    "dim": 512,
    "n_layers": 6,
    "n_heads": 8,
    "n_kv_heads": None,
    "vocab_size": 32_000,
    "hidden_dim": None,
    "multiple_of": 256,
    "norm_eps": 1e-5,
    "block_size": 2048,
    "dropout": 0.0,
    "prefix_vocab_size": None,
    "prefix_pad": None,
}
"""Their `model_args` with what one left out means."""
COUNTS = ("dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "block_size")


def plan_cuervo(folder: Path) -> Plan:
    """How a model of the suite becomes a `LlamaForCausalLM`.

    Raises:
        DataError: another version of the format, a field that is not known, or a model with a prefix vocabulary.
    """
    config = cuervo_config(read_json(folder / "config.json", "checkpoint config", REMEDY), str(folder))

    def change(name: str, weight: Tensor) -> Tensor:
        return halves(weight, config.head_dim) if name.endswith(("q_proj.weight", "k_proj.weight")) else weight

    return Plan(layout="slm (Cuervo and Marxer)", config=config, stock_name=stock_name, change=change)


def cuervo_config(outer: dict[str, Any], what: str) -> Any:
    """The `LlamaConfig` of their config.json; errors as `plan_cuervo`."""
    given = outer.get("model_args")
    if outer.get("format_version") != 1 or not isinstance(given, dict):
        raise DataError(
            f"'{what}': format_version {outer.get('format_version')!r} of an slm checkpoint; this reads version 1, "
            "with model_args"
        )
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise DataError(f"'{what}': model_args has '{unknown[0]}', which may change the model; known: {list(FIELDS)}")
    args = FIELDS | given
    odd = [name for name in COUNTS if type(args[name]) is not int or args[name] < 1]
    if odd:
        raise DataError(f"'{what}': model_args has {odd[0]} {args[odd[0]]!r}; a whole number from 1 on is needed")
    if args["prefix_vocab_size"] is not None:
        raise DataError(
            f"'{what}': the model reads prefixes from a second table (prefix_vocab_size {args['prefix_vocab_size']}), "
            "which no stock model has; give one without"
        )
    return stock_config(
        {
            "model_type": "llama",
            "vocab_size": args["vocab_size"],
            "hidden_size": args["dim"],
            "intermediate_size": args["hidden_dim"] or feed_forward_width(args["dim"], args["multiple_of"]),
            "num_hidden_layers": args["n_layers"],
            "num_attention_heads": args["n_heads"],
            "num_key_value_heads": args["n_kv_heads"] or args["n_heads"],
            "max_position_embeddings": args["block_size"],
            "rms_norm_eps": args["norm_eps"],
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": args["vocab_size"] - 2,
            "dtype": "float32",
        },
        what,
    )


def feed_forward_width(dim: int, multiple_of: int) -> int:
    """Two thirds of four times the width, rounded up to a multiple. Example: feed_forward_width(512, 256) -> 1536"""
    return -(-int(8 * dim / 3) // multiple_of) * multiple_of


def ids_cuervo(config: Any, units: int | None) -> Ids:
    """Units 0 to K - 1, EOS K, PAD K + 1, in a table of K + 2 rows.

    Raises:
        DataError: `units` is given and is another number.
    """
    rows = int(config.vocab_size)
    if units not in (None, rows - 2):
        raise DataError(f"{rows} rows of an slm checkpoint are {rows - 2} units, EOS and PAD, not {units} units")
    units = rows - 2
    return units_alone(units, eos=rows - 2, first=0, rows=rows, names={rows - 1: f"PAD ({rows - 1})"})


def stock_name(name: str) -> str:
    """Llama's name of a weight; names that are not known stay and are refused later."""
    layer = LAYER.fullmatch(name)
    if layer is None:
        return NAMES.get(name, name)
    return f"model.layers.{layer[1]}.{NAMES[layer[2]]}" if layer[2] in NAMES else name


def halves(weight: Tensor, head_dim: int) -> Tensor:
    """Move the rows of each head from neighboring pairs to pairs half a head apart. weight: (heads * head_dim, d)"""
    heads = weight.shape[0] // head_dim
    return weight.reshape(heads, head_dim // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
