"""Would catch: differences of unlike documents or ids, errors that ignore the pairing, text that units leak into."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors

from speechscale.errors import DataError, MissingExtra
from speechscale.evals.compare import _compared
from speechscale.evals.evaluate import evaluate
from speechscale.evals.harness import paired_tasks
from speechscale.evals.harness.export import export_tasks
from speechscale.evals.harness.paired_tasks import Difference, Resampling
from speechscale.evals.harness.runs import Ran, Tasks, load_tasks, run_tasks, text_tokenizer
from speechscale.evals.harness.text_retention import How, Retention, retention
from speechscale.evals.layouts import candidates
from speechscale.evals.protocols import get_protocol
from speechscale.model.slm import drop_speech, extend
from speechscale.records import Item
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

pytest.importorskip("lm_eval")

UTILS = """
from datasets import Dataset

def docs(kind, **_):
    names, verbs = ["tom", "ann", "he", "rome"], ["ran", "won", "lost"]
    rows = [
        {"context": f"{a} {b} . {c}", "choices": [d, "lost" if d == "won" else "won"], "label": 0, "text": f"{a} {d}"}
        for a in names for b in verbs for c in names[:2] for d in verbs
    ]
    return {"test": Dataset.from_list(rows)}
"""
CHOICE = """
task: {name}
custom_dataset: !function utils.docs
dataset_kwargs: {{kind: x}}
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_target: label
doc_to_choice: choices
target_delimiter: " "
metric_list:
  - metric: acc
  - metric: f1
    aggregation: !function utils2.share
    higher_is_better: true
metadata: {{version: 2.0}}
"""
ROLLING = """
task: rolling
custom_dataset: !function utils.docs
dataset_kwargs: {kind: x}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: byte_perplexity
metadata: {version: 1.0}
"""
GROUP = """
group: both
task: [first, second]
aggregate_metric_list:
  - metric: acc
    weight_by_size: false
metadata: {version: 1.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal tasks of 72 documents, a group of both, and a perplexity; data without network."""
    path = tmp_path_factory.mktemp("tasks")
    (path / "utils.py").write_text(UTILS)
    (path / "utils2.py").write_text("def share(pairs):\n    return sum(g == p for g, p in pairs) / len(pairs)\n")
    for name in ("first", "second"):
        (path / f"{name}.yaml").write_text(CHOICE.format(name=name))
    (path / "rolling.yaml").write_text(ROLLING)
    (path / "both.yaml").write_text(GROUP)
    lost = CHOICE.format(name="lost").replace("context", "'tom'").replace("choices", "\"['!!', 'ran']\"")
    (path / "lost.yaml").write_text(lost.replace('delimiter: " "', 'delimiter: ""'))
    (path / "broken.yaml").write_text("task: broken\ndataset_path: json\ndataset_kwargs: {data_files: none.jsonl}\n"
                                      "test_split: test\noutput_type: multiple_choice\n")  # fmt: skip
    return path


@pytest.fixture(scope="module")
def models(vocabulary: Vocabulary, make_model: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """A TextLM, the SLM made of it, and that SLM after it moved."""
    text_lm = make_model("llama", vocab_size=vocabulary.text_size)
    slm = extend(text_lm, vocabulary.text_size, vocabulary.size, seed=0)
    moved = extend(text_lm, vocabulary.text_size, vocabulary.size, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return text_lm, slm.eval(), moved.eval()


def compare(slm: Any, text_lm: Any, vocabulary: Vocabulary, names: list[str], folder: Path, **how: Any) -> Retention:
    return retention(lambda: slm, lambda: text_lm, vocabulary, names, include_path=folder, how=How(**how))


def row(found: Retention, task: str, metric: str) -> Difference:
    return next(entry for entry in found.differences if (entry.task, entry.metric) == (task, metric))


def test_difference_and_error_are_those_of_paired_documents(
    models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path
) -> None:
    text_lm, _, moved = models
    found = compare(moved, text_lm, vocabulary, ["first"], folder)
    tasks, tokenizer = load_tasks(["first"], folder), text_tokenizer(vocabulary)
    right = []
    for model in (text_lm, moved):
        samples = run_tasks(model, tokenizer, tasks, batch_size=5).samples["first"]
        right.append(np.array([by_hand(model, vocabulary, sample["doc"]) for sample in samples]))
    gain = right[1] - right[0]
    entry = row(found, "first", "acc")
    assert entry.text_lm == pytest.approx(right[0].mean())
    assert entry.difference == pytest.approx(gain.mean())
    assert entry.se == pytest.approx(gain.std(ddof=1) / math.sqrt(len(gain)))
    assert entry.low < entry.difference < entry.high
    assert (entry.high - entry.low) / 2 == pytest.approx(1.96 * entry.se, rel=0.15)
    assert (entry.documents, entry.changed) == (72, int((gain != 0).sum()))
    assert entry.changed > 5
    unpaired = math.hypot(*(side.std(ddof=1) / math.sqrt(len(gain)) for side in right))
    assert abs(entry.se / unpaired - 1) > 0.02
    # The same number as a metric that only lm-eval can compute: its error comes from replicates.
    other = row(found, "first", "f1")
    assert other.difference == pytest.approx(entry.difference)
    assert other.se == pytest.approx(entry.se, rel=0.1)
    assert found.stamp["tasks"]["first"] == {"version": 2.0, "num_fewshot": 0, "output": "multiple_choice"}
    assert json.loads(json.dumps(found.record()))["differences"][0]["task"] == "first"


def by_hand(model: Any, vocabulary: Vocabulary, doc: dict[str, Any]) -> float:
    """Whether the model prefers the right choice, from its logits."""
    context = vocabulary.encode_text([doc["context"]]).flat.tolist()
    sums = []
    for choice in doc["choices"]:
        rest = vocabulary.encode_text([f" {choice}"]).flat.tolist()
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([context + rest])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[len(context) - 1 + i, token]) for i, token in enumerate(rest)))
    return float(sums[0] > sums[1])


def test_an_untouched_slm_retains_everything(
    models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path
) -> None:
    """Its text rows alone are the TextLM; over all rows, units take probability from text."""
    text_lm, slm, _ = models
    names = ["rolling", "first"]
    rows = compare(slm, text_lm, vocabulary, names, folder, text_rows=True, replicates=50)
    assert [entry.changed for entry in rows.differences if entry.task == "first"] == [0, 0]
    assert row(rows, "rolling", "byte_perplexity").difference == pytest.approx(0, abs=1e-5)
    full = compare(slm, text_lm, vocabulary, names, folder, replicates=50)
    assert row(full, "rolling", "byte_perplexity").low > 0.01
    assert (rows.stamp["softmax"], full.stamp["softmax"]) == ("text rows", "full")
    assert rows.stamp["slm"]["sha256"] == full.stamp["slm"]["sha256"] != full.stamp["text_lm"]["sha256"]


def test_a_mean_that_is_no_decision_has_the_error_of_paired_documents() -> None:
    """Such as nats per document, over clusters where the task names them."""
    from lm_eval.api.metrics import mean

    old, change = np.random.default_rng(0).normal(3, 1, (2, 60))
    change[1::2] = change[::2]  # Two documents of a cluster change alike, so they are one observation.
    new = old + 0.1 * change

    def ran(values: np.ndarray) -> Ran:
        common = {"filter": "none", "metrics": ["nats"]}
        samples = [
            {"doc_hash": str(i), "doc": {"pair": i // 2}, "nats": value, **common}
            for i, value in enumerate(values.tolist())
        ]
        return Ran(samples={"t": samples}, results={"t": {"nats,none": mean(values)}}, truncated=0)

    def found(metadata: dict[str, str], count: int = 60) -> Difference:
        config = SimpleNamespace(metadata=metadata)
        task = SimpleNamespace(config=config, aggregation=lambda: {"nats": mean}, higher_is_better=dict)
        tasks = Tasks(tasks={"t": task}, groups={})
        (row,) = paired_tasks.compare(tasks, ran(old[:count]), ran(new[:count]), Resampling(replicates=4000))
        return row

    for gain, row in ((new - old, found({})), ((new - old)[::2], found({"cluster": "pair"}))):
        se = gain.std(ddof=1) / math.sqrt(len(gain))
        assert row.se == pytest.approx(se)
        assert row.difference == pytest.approx(gain.mean())
        assert (row.low, row.high) == pytest.approx((gain.mean() - 1.96 * se, gain.mean() + 1.96 * se), abs=0.15 * se)
    assert math.isnan(found({}, count=1).se)


def test_group_is_lm_evals_mean(models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path) -> None:
    text_lm, _, moved = models
    found = compare(moved, text_lm, vocabulary, ["both"], folder, limit=30, replicates=50)
    single, both = row(found, "first", "acc"), row(found, "both", "acc")
    assert (both.difference, both.tasks, both.documents) == (pytest.approx(single.difference), 2, 60)
    assert both.se == pytest.approx(single.se / math.sqrt(2))
    assert both.high - both.difference == pytest.approx(1.96 * both.se, rel=1e-3)


def test_an_exported_text_task_counts_pairs(
    tmp_path: Path, models: tuple[Any, Any, Any], vocabulary: Vocabulary
) -> None:
    """Items of a pair in two voices are one observation; and the ids are those of the candidates, with one <eos>."""
    text_lm, _, moved = models
    words = ["tom", "ann", "ran", "he", "won", "lost", "rome"]
    items = [
        Item(id=f"{a}-{b}-{v}", set="cloze", prompt=f"{a} ran .", good=b, bad="tom ran", pair=f"{a}-{b}", speaker=v)
        for a in words for b in words[3:] for v in "xy"
    ]  # fmt: skip
    export_tasks(tmp_path / "out", items, None, vocabulary, name="bench")
    name = "bench_cloze_tt_speechscale"
    once = compare(moved, text_lm, vocabulary, [name], tmp_path / "out", start="eos")
    again = compare(moved, text_lm, vocabulary, [name], tmp_path / "out", start="tokenizer")
    assert once.differences == again.differences
    entry = row(once, name, "acc")
    tasks = load_tasks([name], tmp_path / "out")
    gains = []
    for model in (text_lm, moved):
        samples = run_tasks(model, text_tokenizer(vocabulary, "eos"), tasks).samples[name]
        gains.append(np.array([sample["acc"] for sample in samples]).reshape(-1, 2).mean(axis=1))
    pairs = gains[1] - gains[0]
    assert entry.se == pytest.approx(pairs.std(ddof=1) / math.sqrt(len(pairs)))
    assert entry.changed > 0
    tokenizer = text_tokenizer(vocabulary, "eos")
    assert tokenizer("tom ran")["input_ids"] == [0, *vocabulary.encode_text(["tom ran"]).flat.tolist()]
    laid_out = candidates(items[:1], None, vocabulary, "tt")[0]
    assert tokenizer.encode("<eos>tom ran . he", add_special_tokens=False) == laid_out.ids.tolist()[: len("0tr.h")]


@pytest.mark.parametrize("protocol", ["cuervo:span=ending", "sims:aggregate=macro", "speechscale:aggregate=all"])
def test_an_exported_text_task_has_the_interval_of_eval_compare(
    tmp_path: Path, models: tuple[Any, Any, Any], vocabulary: Vocabulary, protocol: str
) -> None:
    """A macro mean draws pairs within their phenomenon; candidates with a line of their own are one item."""
    text_lm, _, moved = models
    words, kinds = ["tom", "ann", "ran", "he", "won", "lost", "rome"], {"won": "rare", "lost": "rare"}
    items = [
        Item(
            id=f"{a}-{b}-{v}", set="cloze", good=f"{a} {b} .", bad=f"{b} {a} {v}", pair=f"{a}-{b}",
            phenomenon=kinds.get(b, "often"), speaker=v,
        )
        for a in words[:3] for b in words[3:] for v in ("he", "ran")
    ]  # fmt: skip
    chosen = get_protocol(protocol)
    export_tasks(tmp_path / "out", items, None, vocabulary, name="bench", protocols=[chosen])
    (name,) = load_tasks(["bench"], tmp_path / "out").tasks
    found = row(compare(moved, text_lm, vocabulary, [name], tmp_path / "out"), name, "acc")
    sides = [evaluate(model, vocabulary, items, None, protocols=[chosen]) for model in (text_lm, moved)]
    key = ("bench", "cloze", "tt", chosen.layout)
    pairs = list(zip(*sides, strict=True))
    expected = _compared(pairs, key, "", chosen, replicates=2000, seed=0, level=0.95).difference
    assert found.difference == pytest.approx(expected.estimate)
    assert (found.se, found.low, found.high) == pytest.approx((expected.se, expected.low, expected.high))
    assert (found.documents, 0 < found.changed < len(items)) == (len(items), True)


def test_units_spelled_in_a_text_are_text(vocabulary: Vocabulary) -> None:
    bpe = Vocabulary.joint(build_text_tokenizer(["a <Un1> b"], "bpe", size=300), 10)
    assert max(text_tokenizer(bpe)("<Un1><speech>")["input_ids"]) < bpe.text_size
    with pytest.raises(DataError, match="no text side"):
        text_tokenizer(Vocabulary.textless(10))
    with pytest.raises(DataError, match="start 'x'; allowed: tokenizer, eos"):
        text_tokenizer(vocabulary, "x")  # type: ignore[arg-type]


def test_a_start_token_of_the_tokenizer_stays(vocabulary: Vocabulary) -> None:
    """As in Llama: what stock lm-eval puts in front of a text is not our end-of-document token."""
    own = build_text_tokenizer(["tom ran"])
    own.add_special_tokens(["<s>"])
    start = own.token_to_id("<s>")
    own.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", start)])
    llama = Vocabulary.joint(own, 10)
    stock, ours = text_tokenizer(llama), text_tokenizer(llama, "eos")
    assert stock("tom")["input_ids"][0] == start == stock.bos_token_id
    assert ours("tom")["input_ids"][0] == llama.eos_id == ours.bos_token_id == stock.eos_token_id
    assert text_tokenizer(vocabulary)("tom")["input_ids"] == vocabulary.encode_text(["tom"]).flat.tolist()


def test_cut_documents_are_counted(models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path) -> None:
    text_lm, slm, _ = models
    found = compare(slm, text_lm, vocabulary, ["first"], folder, limit=4, replicates=10, max_length=3)
    assert found.stamp["truncated"] == {"text_lm": 8, "slm": 8}
    assert compare(slm, text_lm, vocabulary, ["first"], folder, limit=4, replicates=10).stamp["truncated"]["slm"] == 0
    lost = load_tasks(["lost"], folder)
    with pytest.raises(DataError, match=r"'tomran': 0 tokens to score, allowed 1 to 256"):
        run_tasks(slm, text_tokenizer(vocabulary), lost)


def test_same_seed_same_numbers_and_random_state_stays(
    models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path
) -> None:
    text_lm, _, moved = models
    random.seed(7)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = random.Random(7).random(), torch.rand(1, generator=torch.Generator().manual_seed(7)).item()
    once = compare(moved, text_lm, vocabulary, ["first"], folder, limit=20, replicates=20)
    assert (random.random(), torch.rand(1).item()) == expected
    assert np.random.random() == np.random.RandomState(7).random()  # noqa: NPY002
    again = compare(moved, text_lm, vocabulary, ["first"], folder, limit=20, replicates=20)
    assert once.record() == again.record()
    other = compare(moved, text_lm, vocabulary, ["first"], folder, limit=20, replicates=20, seed=1)
    assert other.record() != once.record()


def test_what_is_missing_is_said(
    tmp_path: Path, models: tuple[Any, Any, Any], vocabulary: Vocabulary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_lm, slm, _ = models
    with pytest.raises(DataError, match=r"'broken': lm-eval cannot load it .*none.jsonl.* hub: run it where"):
        load_tasks(["broken"], folder)
    with pytest.raises(DataError, match="no such folder"):
        load_tasks(["first"], tmp_path / "nowhere")
    with pytest.raises(DataError, match="'first' is among the tasks already"):
        load_tasks(["both", "first"], folder)
    with pytest.raises(DataError, match="12 rows, its vocabulary 22 ids"):
        compare(drop_speech(slm, 12), text_lm, vocabulary, ["first"], folder)
    with pytest.raises(DataError, match=r"the TextLM has 5 rows .* 10 text ids"):
        compare(slm, drop_speech(text_lm, 5), vocabulary, ["first"], folder, limit=1)
    with pytest.raises(DataError, match="maximum length 257: the SLM reads up to 256 tokens"):
        compare(slm, text_lm, vocabulary, ["first"], folder, limit=1, max_length=257)
    speech = tmp_path / "speech"
    speech.mkdir()
    (speech / "utils.py").write_text(UTILS)
    (speech / "utils2.py").write_text((folder / "utils2.py").read_text())
    (speech / "a.yaml").write_text(CHOICE.format(name="a").replace("version: 2.0", "direction: st"))
    with pytest.raises(DataError, match=r"'a' has speech in it \(direction 'st'\)"):
        compare(slm, text_lm, vocabulary, ["a"], speech)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match="text retention needs the extra 'lm-eval'"):
        load_tasks(["first"], folder)


@pytest.mark.slow
def test_an_unknown_task_is_said() -> None:
    """Reads the 14,000 files of lm-eval."""
    with pytest.raises(DataError, match="'arc_eazy' is not in lm-eval; did you mean 'arc_easy'"):
        load_tasks(["arc_eazy"])
