"""Likelihood tasks as text-only tasks of lm-evaluation-harness.

Enters: items, their cuts, a vocabulary. Leaves: a folder of task files that stock lm-eval runs on any model with this
vocabulary; nothing of speechscale is needed for that. The one decision worth knowing: the document start is spelled out
at the head of every context, so neither an empty context nor a tokenizer's own start token can change a score.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.cuts import Cut
from speechscale.evals.harness.export_files import (
    TESTED,
    Document,
    group_yaml,
    new_folder,
    readme,
    write_task,
    write_utils,
)
from speechscale.evals.harness.spelled import Spelled, load_tokenizer, save_tokenizer, spell
from speechscale.evals.layouts import DIRECTIONS, Candidate, Direction, candidates, item_directions
from speechscale.evals.protocols import DEFAULT, PROTOCOLS, Protocol
from speechscale.files import write_json
from speechscale.progress import Progress, Watch
from speechscale.records import Item
from speechscale.skips import SkipLog
from speechscale.tokens.vocabulary import Vocabulary

FORMAT, FORMAT_VERSION = "speechscale lm-eval export", 1
NOT_USABLE = "`eval run` leaves it out as well: mend the item, or use a model with a longer context"
NOT_SPELLED = "score it with `eval run`, which needs no spelling"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTask:
    """One task of lm-eval.

    Args:
        items: in it. dropped: left out, see skips.jsonl. sha256: of TASK.jsonl; "" if no item was left.
    """

    name: str
    set: str
    direction: Direction
    protocol: str
    items: int
    dropped: int
    sha256: str


def export_tasks(
    out: Path,
    items: Sequence[Item],
    cuts: Mapping[str, Cut | str] | None,
    vocabulary: Vocabulary,
    *,
    name: str,
    directions: Sequence[Direction] = DIRECTIONS,
    protocols: Sequence[Protocol] = (PROTOCOLS[DEFAULT],),
    max_tokens: int | None = None,
    facts: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> list[ExportedTask]:
    """Write every set of items, in each direction it has, under each protocol, as a task of lm-eval.

    The folder: TASK.yaml and TASK.jsonl per task, NAME.yaml (the group of all), utils.py, tokenizer/, README.md,
    export.json, skips.jsonl.

    Args:
        out: a folder that does not exist, or is empty.
        items: of one benchmark; its sets become tasks of their own. cuts: from `cut_items`; None: text alone.
        name: of the group; names of tasks begin with it.
        max_tokens: context of the model; an item with a longer candidate is left out, since lm-eval would cut it.
        facts: what is known of benchmark and model; goes into export.json.

    Raises:
        DataError: a folder with content, a protocol that lm-eval cannot compute, no item left, two tasks of one name.

    Example: lm_eval run --model_args pretrained=MODEL,tokenizer=OUT/tokenizer --include_path OUT --tasks NAME
    """
    plan = _plan(items, vocabulary, directions, protocols, name, spoken=cuts is not None)
    skips, tasks, started = SkipLog(), [], time.monotonic()
    with new_folder(Path(out)) as draft:
        save_tokenizer(vocabulary, draft / "tokenizer")
        tokenizer = load_tokenizer(draft / "tokenizer")
        for task, (group, direction, protocol) in plan.items():
            before = len(skips)
            laid_out = candidates(
                group,
                cuts,
                vocabulary,
                direction,
                layout=protocol.layout,
                on_drop=_dropper(skips, task, NOT_USABLE),
                max_tokens=max_tokens,
            )
            docs = _documents(laid_out, vocabulary, tokenizer, protocol, _dropper(skips, task, NOT_SPELLED))
            skips.check(read=len(group), kept=len(docs), since=before)
            metadata = {
                "version": 1.0,
                "benchmark": name,
                "set": group[0].set,
                "direction": direction,
                "protocol": protocol.name,
                "cluster": "pair",
                "aggregate": protocol.aggregate,
            }
            made = ExportedTask(
                name=task,
                set=group[0].set,
                direction=direction,
                protocol=protocol.name,
                items=len(docs),
                dropped=len(skips) - before,
                sha256=write_task(draft, task, docs, protocol, metadata) if docs else "",
            )
            tasks.append(made)
            if watch is not None:
                wall_s = time.monotonic() - started
                watch(Progress(items_done=len(tasks), items_total=len(plan), wall_s=wall_s, note=task))
        if not any(task.items for task in tasks):
            raise DataError(f"export '{name}': none of {len(items)} items is left ({skips.first() or 'no direction'})")
        _finish(draft, name, tasks, protocols, vocabulary, facts, skips)
    return tasks


def _plan(
    items: Sequence[Item],
    vocabulary: Vocabulary,
    directions: Sequence[Direction],
    protocols: Sequence[Protocol],
    name: str,
    *,
    spoken: bool,
) -> dict[str, tuple[list[Item], Direction, Protocol]]:
    """Name of each task -> its items, direction and protocol."""
    for protocol in protocols:
        if protocol.softmax != "full":
            raise DataError(
                f"protocol '{protocol.name}': softmax={protocol.softmax}; lm-eval has only the full one, "
                "use softmax=full or `speechscale eval run`"
            )
    sets: dict[str, list[Item]] = {}
    for item in items:
        sets.setdefault(item.set, []).append(item)
    plan: dict[str, tuple[list[Item], Direction, Protocol]] = {}
    for set_name, group in sets.items():
        for direction in item_directions(group, vocabulary, spoken=spoken):
            for protocol in protocols if direction in directions else ():
                task = safe_name(f"{name}_{set_name}_{direction}_{protocol.name}")
                if task in plan:
                    raise DataError(f"export '{name}': two tasks would be called '{task}'; rename a set or protocol")
                plan[task] = group, direction, protocol
    return plan


def safe_name(text: str) -> str:
    """A name for lm-eval and for files. Example: "cuervo:end=true" -> "cuervo_end_true"."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")


def _dropper(skips: SkipLog, task: str, remedy: str) -> Callable[[str, str], None]:
    return lambda item, reason: skips.add(f"{task}: {item}", reason, remedy)


def _documents(
    laid_out: Sequence[Candidate],
    vocabulary: Vocabulary,
    tokenizer: Any,
    protocol: Protocol,
    drop: Callable[[str, str], None],
) -> list[Document]:
    """The items of one task. Partners of a pair in one voice leave together, as in `candidates`."""
    documents: list[Document] = []
    reasons: dict[str, str] = {}
    for pair in zip(laid_out[::2], laid_out[1::2], strict=True):
        found = [spell(side, vocabulary, tokenizer, span=protocol.span, end=protocol.end) for side in pair]
        spelled = [side for side in found if isinstance(side, Spelled)]
        over = [_divisor(side, text.tokens, protocol) for side, text in zip(pair, spelled, strict=False)]
        item = pair[0].item
        if len(spelled) < len(pair):
            reasons[item.id] = next(side for side in found if isinstance(side, str))
        elif not all(over):
            lacks = "words" if protocol.normalization == "per_word" else "seconds"
            reasons[item.id] = f"protocol '{protocol.name}' divides by {lacks}, which a candidate has not"
        documents.append(Document(item=item, spelled=tuple(spelled), over=tuple(over)))
    broken = {(doc.item.pair, doc.item.speaker): doc.item.id for doc in documents if doc.item.id in reasons}
    for doc in documents:
        partner = broken.get((doc.item.pair, doc.item.speaker))
        if partner is not None:
            drop(doc.item.id, reasons.get(doc.item.id, f"its symmetric partner {partner} was dropped"))
    return [doc for doc in documents if (doc.item.pair, doc.item.speaker) not in broken]


def _divisor(side: Candidate, tokens: int, protocol: Protocol) -> float:
    words = side.ending_words if protocol.span == "ending" else side.whole_words
    seconds = side.ending_s if protocol.span == "ending" else side.whole_s
    return {"mean": float(tokens), "sum": 1.0, "per_word": float(words), "per_second": seconds}[protocol.normalization]


def _finish(
    folder: Path,
    name: str,
    tasks: Sequence[ExportedTask],
    protocols: Sequence[Protocol],
    vocabulary: Vocabulary,
    facts: Mapping[str, Any] | None,
    skips: SkipLog,
) -> None:
    """Write what is said of all tasks together."""
    group = safe_name(name)
    (folder / f"{group}.yaml").write_text(group_yaml(group, [t.name for t in tasks if t.items]), encoding="utf-8")
    rows = [(task.name, task.items, task.dropped) for task in tasks]
    (folder / "README.md").write_text(readme(group, rows, protocols), encoding="utf-8")
    write_utils(folder)
    skips.write(folder / "skips.jsonl")
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "group": group,
        "tasks": [asdict(task) for task in tasks],
        "protocols": {protocol.name: protocol.stamp() for protocol in protocols},
        "vocabulary": vocabulary.fingerprint,
        "facts": dict(facts or {}),
        "tested_with": {"lm_eval": TESTED},
    }
    write_json(folder / "export.json", record)
