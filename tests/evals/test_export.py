"""Would catch: strings that a stock tokenizer reads as other ids, a task that lm-eval scores otherwise than we do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.evals.cuts import cut_items
from speechscale.evals.evaluate import evaluate
from speechscale.evals.harness import exported_utils
from speechscale.evals.harness.export import export_tasks, safe_name
from speechscale.evals.harness.spelled import Spelled, encode_pair, load_tokenizer, save_tokenizer, spell
from speechscale.evals.layouts import DIRECTIONS, candidates
from speechscale.evals.metrics import measure
from speechscale.evals.protocols import PROTOCOLS, Likelihood, Protocol, get_protocol
from speechscale.records import Item, UnitTable, UnitTableBuilder
from speechscale.skips import read_skips
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

WORDS = ["tom", "ann", "ran", "he", "won", "lost", "rome"]
"""Of the vocabulary in conftest."""


def make_items(count: int = 8) -> list[Item]:
    """Two items in each pair; one pair in two has an ending of other length."""
    items = []
    for pair in range(count // 2):
        endings = ("he won", "he lost the race"), ("rome won", "ann lost")
        for turn, (good, bad) in enumerate((endings[pair % 2], endings[0][::-1] if pair == 2 else endings[1])):
            prompt = f"{WORDS[pair % 2]} ran . {WORDS[turn]} ran"
            items.append(
                Item(
                    id=f"item {pair}/{turn}",
                    set="cloze",
                    prompt=prompt,
                    good=good,
                    bad=bad,
                    pair=f"p{pair}",
                    phenomenon=f"f{pair % 3}",
                )
            )
    return items


def speak(items: Sequence[Item], *, num_units: int = 10, seed: int = 0) -> UnitTable:
    """Each word becomes three units of two frames; every recording has units of its own, also those of one prompt."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=num_units)
    for item in items:
        for side in ("good", "bad"):
            words = f"{item.prompt} {getattr(item, side)}".split()
            units = (np.cumsum(rng.integers(1, num_units - 1, 3 * len(words))) % num_units).astype(np.int16)
            starts = 6 * np.arange(len(words))
            builder.add(
                id=f"{item.id}/{side}",
                speaker="a",
                split="items",
                text=" ".join(words),
                units=units,
                durations_frames=np.full(len(units), 2, np.int32),
                words=words,
                word_frames=np.stack([starts, starts + 6], axis=1),
            )
    return builder.build()


@pytest.fixture(scope="module")
def bpe() -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(["tom ran. he won the race", "ann lost it"], "bpe", size=300), 10)


def run_harness(folder: Path, model: Any, tasks: list[str], *, batch_size: int = 3) -> dict[str, Any]:
    """What `lm_eval run --include_path FOLDER` does, without its own 14,000 tasks."""
    harness = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tokenizer = str(folder / "tokenizer")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, logits_cache=False)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return dict(harness.simple_evaluate(model=lm, tasks=tasks, task_manager=manager, bootstrap_iters=0))


def log_likelihoods(samples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Item id -> log-likelihood of the good and the bad choice, as lm-eval measured them."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        doc = sample["doc"]
        values = [float(response[0]) for response in sample["filtered_resps"]]
        if "label" in doc:
            found[doc["id"]] = [values[doc["label"]], values[1 - doc["label"]]]
        else:
            found.setdefault(doc["id"], [0.0, 0.0])[doc["side"] == "bad"] = values[0]
    return found


NAMES = [
    "speechscale",
    "sims-cross",  # no start token, markers scored
    "slam",  # end token scored
    "cuervo:span=ending",  # mean over phenomena
    "twist:normalization=sum",  # mean over pairs
    "speechscale:normalization=per_word",
    "speechscale:aggregate=all",  # pairs whose items are all right
]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_harness_gives_our_numbers(
    tmp_path: Path, vocabulary: Vocabulary, make_model: Callable[..., Any], kind: str
) -> None:
    model, items = make_model(kind), make_items()
    table = speak(items)
    protocols = [get_protocol(name) for name in (NAMES if kind == "llama" else NAMES[:1])]
    made = export_tasks(tmp_path / "out", items, cut_items(items, table), vocabulary, name="bench", protocols=protocols)
    assert len(made) == 4 * len(protocols)
    found = run_harness(tmp_path / "out", model, ["bench"])
    choices = evaluate(model, vocabulary, items, table, protocols=protocols)
    metrics = {(m.direction, m.protocol): m.estimate for m in measure(choices, protocols, replicates=10)}
    for task in made:
        protocol = get_protocol(task.protocol)
        own = [c for c in choices if (c.direction, c.layout) == (task.direction, protocol.layout)]
        ours = {c.id: [_sum(c.good, protocol), _sum(c.bad, protocol)] for c in own}
        theirs = log_likelihoods(found["samples"][task.name])
        assert list(theirs) == list(ours)
        assert task.items == len(items)
        np.testing.assert_allclose(list(theirs.values()), list(ours.values()), rtol=0, atol=1e-4)
        expected = metrics[task.direction, task.protocol]
        assert found["results"][task.name]["acc,none"] == pytest.approx(expected, abs=1e-9)
    assert len(set(metrics.values())) > (4 if kind == "llama" else 1)


def _sum(side: Likelihood, protocol: Protocol) -> float:
    total = side.ending_full if protocol.span == "ending" else side.whole_full
    return total + (side.end_full if protocol.end else 0.0)


def test_each_recording_has_its_own_prompt(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """Or the parity above would say nothing about two contexts of one item, nor about one."""
    items = make_items()
    made = export_tasks(tmp_path / "out", items, cut_items(items, speak(items)), vocabulary, name="bench")
    kinds = {task.direction: (tmp_path / "out" / f"{task.name}.yaml").read_text() for task in made}
    assert '"loglikelihood"' in kinds["ss"]
    assert all('"multiple_choice"' in kinds[direction] for direction in ("st", "ts", "tt"))
    rows = read_rows(tmp_path / "out", "bench_cloze_ss_speechscale")
    assert len({row["context"] for row in rows[:2]}) == 2
    assert rows[0]["context"].startswith("<eos><Un")
    labels = [row["label"] for row in read_rows(tmp_path / "out", "bench_cloze_tt_speechscale")]
    assert 0 < sum(labels) < len(labels)  # else an argmax that takes the first would win all ties


def read_rows(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{task}.jsonl").read_text().splitlines()]


def test_what_lm_eval_reads_are_our_ids(tmp_path: Path, vocabulary: Vocabulary, bpe: Vocabulary) -> None:
    items = make_items()
    cuts = cut_items(items, speak(items))
    for number, own in enumerate((vocabulary, bpe)):
        save_tokenizer(own, tmp_path / str(number))
        tokenizer = load_tokenizer(tmp_path / str(number))
        for name in ("speechscale", "sims", "sims-cross", "slam"):
            protocol = get_protocol(name)
            for direction in DIRECTIONS:
                for side in candidates(items, cuts, own, direction, layout=protocol.layout):
                    found = spell(side, own, tokenizer, span=protocol.span, end=protocol.end)
                    assert isinstance(found, Spelled)
                    first = side.prompt_tokens if protocol.span == "ending" else 1
                    ids = [*side.ids.tolist(), *[own.eos_id] * protocol.end]
                    assert encode_pair(tokenizer, found.context, found.continuation) == (ids[:first], ids[first:])
                    assert found.tokens == len(ids) - first


def test_encode_pair_is_lm_evals(tmp_path: Path, bpe: Vocabulary) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.model import TemplateLM

    save_tokenizer(bpe, tmp_path)
    tokenizer = load_tokenizer(tmp_path)

    class Theirs:
        backend = "causal"
        tok_encode = staticmethod(tokenizer.encode)

    for context, continuation in (("<eos>tom ran ", "he won"), ("<eos><Un1>", "<Un2><eos>"), ("tom  ", " ran")):
        expected = TemplateLM._encode_pair(Theirs(), context, continuation)
        assert encode_pair(tokenizer, context, continuation) == expected


def test_texts_that_cannot_be_spelled_leave_with_their_partner(tmp_path: Path, bpe: Vocabulary) -> None:
    """A text that holds "<eos>" is text to us and the end of a document to a stock tokenizer."""
    smuggled = [
        Item(id=f"i{turn}", set="pairs", good=good, bad=bad, pair="p")
        for turn, (good, bad) in enumerate((("tom<eos>ran", "ann lost"), ("ann lost it", "tom ran")))
    ]
    fine = [Item(id="i2", set="pairs", good="he won", bad="he lost", pair="q", speaker="b")]
    made = export_tasks(tmp_path / "out", smuggled + fine, None, bpe, name="text")
    assert [(task.direction, task.items, task.dropped) for task in made] == [("tt", 1, 2)]
    skips = list(read_skips(tmp_path / "out" / "skips.jsonl"))
    assert [skip.id for skip in skips] == ["text_pairs_tt_speechscale: i0", "text_pairs_tt_speechscale: i1"]
    assert "no text gives its token ids" in skips[0].reason
    assert "partner i0" in skips[1].reason


def test_items_beyond_the_context_are_left_out(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """lm-eval would cut them on the left without an error."""
    items = make_items()
    made = export_tasks(tmp_path / "out", items, None, vocabulary, name="b", max_tokens=9)
    assert [(task.items, task.dropped) for task in made] == [(4, 4)]  # "he lost the race" is ten with its prompt
    with pytest.raises(DataError, match="none of 8 items is left"):
        export_tasks(tmp_path / "none", items, None, vocabulary, name="b", max_tokens=3)
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_exported_is_said(tmp_path: Path, vocabulary: Vocabulary) -> None:
    items = make_items(2)
    with pytest.raises(DataError, match="softmax=own; lm-eval has only the full one"):
        export_tasks(tmp_path / "a", items, None, vocabulary, name="b", protocols=[get_protocol("sims:softmax=own")])
    twice = [get_protocol("sims"), PROTOCOLS["sims"]]
    with pytest.raises(DataError, match="two tasks would be called"):
        export_tasks(tmp_path / "a", items, None, vocabulary, name="b", protocols=twice)
    per_second = [get_protocol("speechscale:normalization=per_second")]
    with pytest.raises(DataError, match="divides by seconds, which a candidate has not"):
        export_tasks(tmp_path / "a", items, None, vocabulary, name="b", protocols=per_second)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        export_tasks(tmp_path / "full", items, None, vocabulary, name="b")
    assert safe_name("cuervo:normalization=sum,end=true") == "cuervo_normalization_sum_end_true"


def test_same_items_same_bytes(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for name in ("a", "b"):
        export_tasks(tmp_path / name, make_items(), None, vocabulary, name="bench", facts={"licence": "CC0"})
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 9
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_means_by_hand() -> None:
    """Two pairs of one phenomenon, one of another: 1, (1 + 0) / 2 and a tie."""
    doc = {"label": 1, "over": [2.0, 4.0], "ties": 0.5, "tie_nats": 1e-5, "pair": "p", "phenomenon": "f"}
    assert exported_utils.decide(doc, [(-6.0, False), (-8.0, False)]) == {"acc": 1.0, "acc_sum": 0.0}
    assert exported_utils.decide(doc, [(-4.0, False), (-8.0, True)]) == {"acc": 0.5, "acc_sum": 0.0}
    rows = [[1.0, "p", "f"], [1.0, "q", "f"], [0.0, "q", "f"], [0.5, "r", "g"]]
    assert exported_utils.item_mean(rows) == 0.625
    assert exported_utils.pair_mean(rows) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert exported_utils.macro_mean(rows) == pytest.approx((0.75 + 0.5) / 2)
    assert exported_utils.all_mean(rows) == pytest.approx((1 + 0 + 0.5) / 3)
    singles = [
        [-1.0, "p", "f", "i", "bad", 0.5, 1e-5],
        [-0.5, "p", "f", "i", "good", 0.5, 1e-5],
        [-2.0, "q", "f", "j", "good", 0.5, 1e-5],  # its partner was cut off by a limit
    ]
    assert exported_utils.pair_mean(singles) == 1.0
    assert exported_utils.pair_mean(singles * 2) == 1.0


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(exported_utils, "__file__", str(tmp_path / "utils.py"))
    (tmp_path / "t.jsonl").write_text('{"id": "a"}\n')
    sha256 = hashlib.sha256(b'{"id": "a"}\n').hexdigest()
    assert exported_utils.docs("../t.jsonl", sha256, version=1)["test"][0] == {"id": "a"}
    (tmp_path / "t.jsonl").write_text('{"id": "b"}\n')
    with pytest.raises(ValueError, match="checksum"):
        exported_utils.docs("t.jsonl", sha256)
    separated = '{"id": "a\u2028b"}\n'.encode()  # ends a line for Python, not for JSON
    (tmp_path / "t.jsonl").write_bytes(separated)
    assert exported_utils.docs("t.jsonl", hashlib.sha256(separated).hexdigest())["test"][0] == {"id": "a\u2028b"}
