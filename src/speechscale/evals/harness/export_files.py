"""Files of an exported folder: what lm-evaluation-harness reads, and what tells people how to run it.

Enters: documents and names. Leaves: TASK.jsonl, TASK.yaml, the group, README.md. The one decision worth knowing: YAML
is written as `key: JSON`, which it is, so that no YAML library is needed and nothing is quoted in another way.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.cuts import SIDES
from speechscale.evals.harness import exported_utils
from speechscale.evals.harness.spelled import Spelled
from speechscale.evals.protocols import Protocol
from speechscale.records import Item

TESTED = "0.4.13"
"""lm_eval that exported tasks were run with."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a draft beside `out`; it becomes `out` if the block succeeds, else it is removed.

    Raises:
        DataError: `out` has content.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: it exists and is not empty; give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    draft.mkdir()
    try:
        yield draft
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_utils(folder: Path) -> None:
    """Put what the tasks call beside them."""
    shutil.copyfile(str(exported_utils.__file__), folder / "utils.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An item with its candidates, good then bad, as strings. over: what the protocol divides each by."""

    item: Item
    spelled: tuple[Spelled, ...]
    over: tuple[float, ...]


def write_task(
    folder: Path, name: str, documents: Sequence[Document], protocol: Protocol, metadata: Mapping[str, Any]
) -> str:
    """Write the documents and the YAML of one task; returns the checksum of the documents.

    lm-eval has one context for all choices of a document. Where that is so for every item, the task is
    "multiple_choice" with a line per item; else ("ss": each candidate behind its own recording of the prompt)
    "loglikelihood" with a line per candidate, and decisions are made where lm-eval takes the mean.
    """
    shared = all(doc.spelled[0].context == doc.spelled[1].context for doc in documents)
    rows = [row for doc in documents for row in (_choice_rows if shared else _single_rows)(doc, protocol)]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / f"{name}.jsonl").write_bytes(content)
    text = task_yaml(name, sha256, protocol, metadata, shared=shared)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return sha256


def _choice_rows(doc: Document, protocol: Protocol) -> list[dict[str, Any]]:
    """One line for an item. A hash of the id says whether the good choice is first, which an argmax takes on a tie."""
    label = hashlib.sha256(doc.item.id.encode()).digest()[0] % 2
    order = (1, 0) if label else (0, 1)
    return [
        {
            "id": doc.item.id,
            "context": doc.spelled[0].context,
            "choices": [doc.spelled[side].continuation for side in order],
            "label": label,
            "tokens": [doc.spelled[side].tokens for side in order],
            "over": [doc.over[side] for side in order],
            **_common(doc, protocol),
        }
    ]


def _single_rows(doc: Document, protocol: Protocol) -> list[dict[str, Any]]:
    """Two lines for an item, good and bad."""
    return [
        {
            "id": doc.item.id,
            "side": side,
            "context": spelled.context,
            "continuation": spelled.continuation,
            "tokens": spelled.tokens,
            "over": over,
            **_common(doc, protocol),
        }
        for side, spelled, over in zip(SIDES, doc.spelled, doc.over, strict=True)
    ]


def _common(doc: Document, protocol: Protocol) -> dict[str, Any]:
    names = {name: getattr(doc.item, name) for name in ("pair", "phenomenon", "tag", "speaker")}
    return {**names, "ties": protocol.ties, "tie_nats": protocol.tie_nats}


def task_yaml(name: str, sha256: str, protocol: Protocol, metadata: Mapping[str, Any], *, shared: bool) -> str:
    """A task of lm-eval. "acc" decides and averages as the protocol says; "acc_sum" decides by the sum alone.

    Args:
        shared: one line per item; else one per candidate.
    """
    plain = shared and protocol.aggregate == "item"
    mean = '"mean"' if plain else f"!function utils.{protocol.aggregate}_mean"
    rule = ("decide" if plain else "decide_named") if shared else "values"
    target = 'doc_to_choice: "choices"\ndoc_to_target: "label"' if shared else 'doc_to_target: "continuation"'
    lines = [
        f"task: {json.dumps(name)}",
        "custom_dataset: !function utils.docs",
        f"dataset_kwargs: {json.dumps({'file': f'{name}.jsonl', 'sha256': sha256})}",
        'test_split: "test"',
        f'output_type: "{"multiple_choice" if shared else "loglikelihood"}"',
        'doc_to_text: "context"',
        target,
        'target_delimiter: ""',
        f"process_results: !function utils.{rule}",
        "metric_list:",
    ]
    for metric in ("acc", "acc_sum"):
        lines += [f'  - metric: "{metric}"', f"    aggregation: {mean}", "    higher_is_better: true"]
    return "\n".join([*lines, f"metadata: {json.dumps(dict(metadata))}"]) + "\n"


def group_yaml(name: str, tasks: Sequence[str]) -> str:
    """All tasks under one name, without a mean over them: they have different items and directions."""
    return f"group: {json.dumps(name)}\ntask: {json.dumps(list(tasks))}\n"


def readme(group: str, rows: Sequence[tuple[str, int, int]], protocols: Sequence[Protocol]) -> str:
    """How to run the folder, for whoever gets it alone.

    Args:
        rows: task, its items, items left out.
    """
    table = "\n".join(f"| `{task}` | {items} | {dropped} |" for task, items, dropped in rows)
    rules = "\n".join(
        f"- `{protocol.name}`: {json.dumps(protocol.stamp())}. {protocol.source}" for protocol in protocols
    )
    return README.format(group=group, table=table, rules=rules, tested=TESTED)


README = """# {group}: likelihood tasks of speech as text

Units of speech are tokens with a spelling (`<Un12>`), so these tasks need nothing but lm-evaluation-harness and a model
with this vocabulary. Written by speechscale, run with lm_eval {tested}.

    lm_eval run --model hf --model_args pretrained=MODEL,tokenizer=OUT/tokenizer,dtype=float32,logits_cache=False \\
        --include_path OUT --tasks {group} --batch_size 8

`OUT` is this folder, `MODEL` the model's. For vLLM: `--model vllm`, without `logits_cache`.

- Always name `tokenizer=OUT/tokenizer`. Beside a model's config.json transformers may choose a tokenizer class of that
  family, which splits text in its own way.
- `logits_cache=False`: with the cache of lm_eval {tested}, two requests that read the same tokens but score a different
  number of them (one protocol scores the ending, another the whole) get a wrong log-likelihood.
- Every context starts with its first token spelled out (the end-of-document token, where the protocol has one) and is
  never empty. Leave `add_bos_token`, `prefix_token_id`, few-shot examples and chat templates off.
- `acc` is the decision of the protocol, averaged as it says; `acc_sum` compares plain sums of log-likelihood.
- Where each candidate has a context of its own, the task has a line per candidate ("loglikelihood") and decides where
  lm-eval takes the mean.
- lm-eval's standard error, where it gives one, is over items; items of one `pair` are one observation, so it is too
  small for them.
- Items that a stock tokenizer would not read as the same token ids are left out, see skips.jsonl.

| task | items | left out |
|---|---|---|
{table}

Protocols:

{rules}
"""
