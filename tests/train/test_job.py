"""Catches a job that is not carried out as written: wrong budget, foreign data or model, a folder of another recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechscale.errors import DataError, StaleStep
from speechscale.model import memory
from speechscale.model.flops import Convention, flops_per_token
from speechscale.model.folders import load_model, load_text_lm, save_model
from speechscale.model.sizes import SIZES, get_size
from speechscale.model.slm import new_model
from speechscale.records import UnitTable
from speechscale.speech.units import SpeechTokenizer
from speechscale.tokens.shards import write_packed
from speechscale.tokens.sources import BLOCK_ROWS, StoreSource
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train import objective
from speechscale.train.adapt import Adaptation
from speechscale.train.config import Runtime, require_fit
from speechscale.train.feed import feed, open_mixture
from speechscale.train.job import TrainJob, load_job
from speechscale.train.logs import read_events
from speechscale.train.losses import Rates
from speechscale.train.parallel import SOLO
from speechscale.train.plan import plan_lines
from speechscale.train.run import Options, prepare, run_job
from speechscale.train.run_folder import RESULT
from speechscale.train.start import make_model
from speechscale.train.stopping import StopRequest
from tests.tokens.conftest import NUM_UNITS, WORDS, random_table

CONTEXT = 48


def make_data(folder: Path, table: UnitTable | None = None) -> Path:
    """A store and its vocabulary, as `tokens build` lays them out."""
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS) + "."], "words", 100), NUM_UNITS)
    vocabulary.save(folder / "vocabulary")
    texts = [" ".join(WORDS[(k + i) % len(WORDS)] for i in range(3 + k % 20)) for k in range(300)]
    build_store(folder / "store", vocabulary, table=table or random_table(120, most_words=20), texts=texts)
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def job_table(store: Path, **changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "data": {
            "sources": {
                "speech": {"store": str(store), "stream": "speech", "share": 0.5},
                "text": {"store": str(store), "stream": "text", "share": 0.2},
                "mixed": {"store": str(store), "stream": "interleaved", "share": 0.3},
            },
            "interleave": {"speech_span": "poisson(2)"},
        },
        "validation": {
            "select": {"store": str(store), "documents": 20},
            "mixed": {"store": str(store), "stream": "interleaved", "documents": 20},
        },
        "model": {"start": "scratch", "size": "0.02M"},
        "train": {"tokens": 2_000, "context": CONTEXT, "batch_rows": 4, "learning_rate": 5e-3, "checks": 2},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        table[section][name] = value
    return table


def run(table: dict[str, Any], folder: Path, options: Options | None = None, **wanted: Any) -> dict[str, Any]:
    return run_job(prepare(TrainJob.model_validate(table)), folder, SOLO, options or Options(), **wanted)


def test_a_job_leaves_a_stock_model_a_log_and_a_record(store: Path, tmp_path: Path) -> None:
    record = run(job_table(store), tmp_path / "run")
    assert record["tokens_seen"] == 2_000
    assert record == json.loads((tmp_path / "run" / RESULT).read_text())
    size, vocabulary = get_size("0.02M"), Vocabulary.load(store.parent / "vocabulary")
    assert record["flops"]["flops_exact"] == 2_000 * flops_per_token(size, vocabulary.size, CONTEXT).flops_exact
    assert set(record["flops"]) == {f"flops_{name}" for name in get_args(Convention)}
    events = read_events(tmp_path / "run" / "metrics.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["tokens_by_modality"] == {
        kind: sum(stream[kind] for stream in record["targets"].values()) for kind in ("text", "speech", "marker")
    }
    assert sum(steps[-1]["tokens_by_modality"].values()) == 2_000
    final = record["losses_final"]["select"]
    rates = Rates.of(TokenStore.open(store, vocabulary))
    assert rates.units_per_second is not None
    assert rates.units_per_word is not None
    assert final["speech_per_second"] == pytest.approx(final["speech_per_unit"] * rates.units_per_second)
    assert final["speech_per_word"] == pytest.approx(final["speech_per_unit"] * rates.units_per_word)
    for name in ("model", "best"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / name)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / name)
        assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == vocabulary.size
    assert run(job_table(store), tmp_path / "run") == record, "a finished run was run again"


def test_rates_of_a_store_are_those_of_its_table(tmp_path: Path) -> None:
    table = random_table(30, most_words=10)
    made = make_data(tmp_path, table)
    rates = Rates.of(TokenStore.open(made, Vocabulary.load(tmp_path / "vocabulary")))
    assert rates.units_per_second == pytest.approx(len(table.units) / (table.hours * 3600))
    assert rates.units_per_word == pytest.approx(len(table.units) / len(table.words))
    assert rates.text_tokens_per_word == 1.0  # one id per word in this tokenizer


@pytest.mark.parametrize("save", [{"save_every_tokens": 400}, {"save_every_s": 1e-9}])
def test_an_interrupted_job_goes_on_to_the_same_end(store: Path, tmp_path: Path, save: dict[str, Any]) -> None:
    whole = run(job_table(store), tmp_path / "whole")

    class StopAt(StopRequest):
        def __init__(self, asked: int) -> None:
            super().__init__()
            self.left = asked

        def __call__(self) -> str:
            self.left -= 1
            return "asked to stop (test)" if self.left < 0 else ""

    options = Options(runtime=Runtime(**save))
    for steps in (5, 4):
        part = run(job_table(store), tmp_path / "parts", options, stop=StopAt(steps))
        assert part["interrupted"]
        assert not (tmp_path / "parts" / "model").exists()
    last = run(job_table(store), tmp_path / "parts", options)
    same = ("tokens_seen", "steps", "targets", "losses_final", "losses_best", "flops")
    assert {key: last[key] for key in same} == {key: whole[key] for key in same}
    weights = [AutoModelForCausalLM.from_pretrained(tmp_path / name / "model") for name in ("whole", "parts")]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].parameters(), weights[1].parameters(), strict=True))
    logs = [read_events(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    whole_log, parts_log = ([event for event in events if event["event"] == "step"] for events in logs)
    assert [event["step"] for event in parts_log] == list(range(1, last["steps"] + 1))
    assert parts_log[-1]["tokens_by_modality"] == whole_log[-1]["tokens_by_modality"]
    assert sum(parts_log[-1]["tokens_by_modality"].values()) == 2_000, "counts began anew with a start"


def test_wall_time_ends_a_job_with_its_validation(store: Path, tmp_path: Path) -> None:
    record = run(job_table(store), tmp_path / "run", Options(runtime=Runtime(max_s=1e-9)))
    assert record["stopped"] == "the wall time of 0 s is spent"
    assert record["steps"] == 1
    assert record["losses_final"]["select"]["speech_per_unit"] > 0
    assert (tmp_path / "run" / "model").is_dir()


def test_a_budget_in_flops_buys_tokens(store: Path) -> None:
    table = job_table(store)
    table["train"] = {**table["train"], "flops": 1e9, "batch_tokens": 4 * CONTEXT}
    del table["train"]["tokens"], table["train"]["batch_rows"]
    made = prepare(TrainJob.model_validate(table))
    assert made.config.tokens == int(1e9 / made.flops.flops_exact)
    assert made.config.batch_rows == 4
    table["train"] = {**table["train"], "flops_convention": "6nd_attention"}
    made = prepare(TrainJob.model_validate(table))
    assert made.config.tokens == int(1e9 / made.flops.flops_6nd_attention)


def test_loader_processes_change_nothing(store: Path) -> None:
    """Any number of them, also when a run goes on with another one."""
    made = prepare(TrainJob.model_validate(job_table(store)))
    assert made.job.data is not None

    def batches(count: int, workers: int, state: Any = None) -> list[Any]:
        mixture = open_mixture(made.job.data, made.vocabulary, CONTEXT, 2_000)  # type: ignore[arg-type]
        stream = feed(mixture, 4, SOLO, state=state, workers=workers)
        return [next(stream) for _ in range(count)]

    alone = batches(9, 0)
    shared = batches(5, 2)
    rest = batches(4, 0, shared[-1][1])
    for (batch, state), (other, other_state) in zip(alone, shared + rest, strict=True):
        assert np.array_equal(batch.tokens, other.tokens)
        assert np.array_equal(batch.segments, other.segments)
        assert state == other_state


def test_packed_rows_train_like_their_store(store: Path, tmp_path: Path) -> None:
    """In the first epoch the rows on disk are those that are made on the fly."""
    vocabulary = Vocabulary.load(store.parent / "vocabulary")
    rows = write_packed(TokenStore.open(store, vocabulary), "speech", tmp_path / "rows", context=CONTEXT, seed=0)
    assert rows.tokens > 2_500, "the test needs one epoch"
    losses = []
    for number, place in enumerate(({"rows": str(tmp_path / "rows")}, {"store": str(store)})):
        table = job_table(store)
        table["data"]["sources"] = {"speech": {**place, "stream": "speech", "share": 1}}
        table["data"]["vocabulary"] = str(store.parent / "vocabulary")
        losses.append(run(table, tmp_path / f"run-{number}")["losses_final"])
    assert losses[0] == losses[1]
    table["data"]["sources"]["speech"] = {"rows": str(tmp_path / "rows"), "stream": "text", "share": 1}
    with pytest.raises(DataError, match=r"data.sources.speech: stream 'text', the rows in .* are 'speech'"):
        run(table, tmp_path / "other")


def test_a_curriculum_moves_on_within_a_short_job(store: Path) -> None:
    """Blocks of the usual size would hold the whole training at its first knot."""
    table = job_table(store)
    table["data"]["interleave"] |= {"curriculum": [{"at": 0, "speech_share": 0.2}, {"at": 1, "speech_share": 0.8}]}
    made = prepare(TrainJob.model_validate(table))
    assert made.job.data is not None
    sources = open_mixture(made.job.data, made.vocabulary, CONTEXT, 2_000).sources
    rows = {source.stream: source.block_rows for source in sources if isinstance(source, StoreSource)}
    assert rows["interleaved"] < rows["speech"] == rows["text"] == BLOCK_ROWS


@pytest.mark.parametrize("start", ["warm", "textless-warm"])
@pytest.mark.parametrize("trains", ["all", "lora"])
def test_a_text_lm_becomes_an_slm(store: Path, tmp_path: Path, start: str, trains: str) -> None:
    joint = Vocabulary.load(store.parent / "vocabulary")
    save_model(new_model(SIZES["0.02M"], joint.text_size + 7, CONTEXT, seed=3), tmp_path / "text_lm")
    table = job_table(store, model__start=start, model__path=str(tmp_path / "text_lm"), model__size="")
    table["adapt"] = {"trains": trains, "rank": 2}
    if start == "textless-warm":
        textless = Vocabulary.textless(NUM_UNITS)
        textless.save(tmp_path / "textless")
        table["data"]["vocabulary"] = str(tmp_path / "textless")
        table["data"]["sources"] = {"speech": {"store": str(store), "stream": "speech", "share": 1}}
        table["validation"] = {"select": {"store": str(store), "documents": 20}}
    record = run(table, tmp_path / "run")
    units = math.log(NUM_UNITS)
    assert record["losses_final"]["select"]["speech_per_unit"] < units + 0.5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_an_slm_goes_on_with_its_own_vocabulary_only(store: Path, tmp_path: Path) -> None:
    first = run(job_table(store), tmp_path / "first")
    more = job_table(store, model__start="slm", model__path=str(tmp_path / "first" / "model"), model__size="")
    record = run(more, tmp_path / "second")
    before, after = (found["losses_final"]["select"]["speech_per_unit"] for found in (first, record))
    assert after < before
    Vocabulary.textless(NUM_UNITS).save(tmp_path / "other")
    more["data"]["vocabulary"] = str(tmp_path / "other")
    more["data"]["sources"] = {"speech": {"store": str(store), "stream": "speech", "share": 1}}
    more["validation"] = {}
    with pytest.raises(DataError, match=r"its vocabulary .* is not the data's .*build the tokens with the model's"):
        run(more, tmp_path / "third")


def test_a_folder_belongs_to_one_recipe(store: Path, tmp_path: Path) -> None:
    run(job_table(store), tmp_path / "run")
    other = job_table(store, train__learning_rate=1e-3)
    with pytest.raises(StaleStep, match=r"job.train.learning_rate: 0.005 -> 0.001\ngive another --out, or --fresh"):
        run(other, tmp_path / "run")
    assert run(other, tmp_path / "run", Options(fresh=True))["tokens_seen"] == 2_000
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    with pytest.raises(DataError, match=r"holds other files and no job\.json"):
        run(other, tmp_path / "taken")


def test_divergence_leaves_the_batch(store: Path, tmp_path: Path) -> None:
    table = job_table(store, train__learning_rate=1e12, train__precision="fp32")
    with pytest.raises(FloatingPointError, match=r"run has diverged.*batch is in .*diverged-step-\d+-rank-0.npz"):
        run(table, tmp_path / "run")
    (dump,) = (tmp_path / "run").glob("diverged-*.npz")
    with np.load(dump) as batch:
        assert batch["tokens"].shape == (4, CONTEXT)


BAD: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("unknown key", lambda t: t["train"].update(learning_rat=1), r"train.learning_rat; did you mean 'learning_rate'"),
    ("two budgets", lambda t: t["train"].update(flops=1e9), "train: give either tokens or flops"),
    (
        "batch",
        lambda t: t["train"].update(batch_rows=None, batch_tokens=100),
        "100 is no multiple of context = 48; take 96 or 144",
    ),
    ("no data", lambda t: t.pop("data"), r"give \[data\] and \[train\], or \[preference\]"),
    ("no size", lambda t: t["model"].pop("size"), "start 'scratch' needs size"),
    ("missing", lambda t: t["train"].pop("context"), "train.context is missing"),
]


@pytest.mark.parametrize(("what", "change", "said"), BAD, ids=[entry[0] for entry in BAD])
def test_a_wrong_file_names_the_key(
    store: Path, tmp_path: Path, what: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    from tests.train.toml import write_toml

    table = job_table(store)
    change(table)
    with pytest.raises(DataError, match=said):
        load_job(write_toml(tmp_path / f"{what}.toml", table))


def test_what_cannot_be_trained_is_refused_before_it_begins(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the warm-up takes 3,000 tokens, the rate ends after 2,000"):
        prepare(TrainJob.model_validate(job_table(store, train__warmup_tokens=3_000)))
    table = job_table(store, train__tokens=10**6)
    table["data"]["sources"]["speech"]["max_epochs"] = 1
    with pytest.raises(DataError, match=r"'speech' has .* tokens, its share .*max_epochs 1"):
        run(table, tmp_path / "epochs")
    with pytest.raises(DataError, match="no vocabulary beside it"):
        prepare(TrainJob.model_validate(job_table(tmp_path / "nothing" / "store")))
    with pytest.raises(DataError, match="cannot be shared out to 3 processes"):
        plan(prepare(TrainJob.model_validate(job_table(store))), world=3)
    save_model(new_model(get_size("opt:0.1M"), 50, 32, seed=0), tmp_path / "opt")
    long = job_table(store, model__start="warm", model__path=str(tmp_path / "opt"), model__size="", train__context=4096)
    with pytest.raises(DataError, match=r"context 4096 is longer than the 2048 positions"):
        run(long, tmp_path / "opt-run")


def plan(prepared: Any, **changes: Any) -> list[str]:
    usual: dict[str, Any] = {"world": 1, "device": "cpu", "parallel": "ddp", "micro_rows": None, "recompute": False}
    return plan_lines(prepared, **{**usual, "attention": "auto", "memory_bytes": None, **changes})


def test_a_plan_says_what_it_needs_and_what_would_fit(store: Path) -> None:
    prepared = prepare(TrainJob.model_validate(job_table(store)))
    lines = "\n".join(plan(prepared))
    model = new_model(SIZES["0.02M"], prepared.vocabulary.size, CONTEXT, seed=0)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} parameters" in lines
    assert "2,000 tokens" in lines
    assert "optimizer" in lines
    roomy = "\n".join(plan(prepared, device="cuda", memory_bytes=80 * 2**30))
    assert "80.00 GiB; fits; at most" in roomy
    wide = job_table(store, model__size="qwen2.5-1.5B", train__batch_rows=64, train__context=2048)
    tight = "\n".join(plan(prepare(TrainJob.model_validate(wide)), device="cuda", memory_bytes=40 * 2**30))
    assert "DOES NOT FIT" in tight
    assert "it would fit with checkpointing and micro_rows = 1" in tight
    assert memory.MIN_CHUNK_TARGETS == objective.MIN_CHUNK_TARGETS, "the plan's head is not the loop's"


def test_rows_of_units_may_come_from_their_clusters_and_markers_from_text(store: Path, tmp_path: Path) -> None:
    joint = Vocabulary.load(store.parent / "vocabulary")
    save_model(new_model(SIZES["0.02M"], joint.text_size, CONTEXT, seed=3), tmp_path / "text_lm")
    centers = np.random.default_rng(0).normal(size=(NUM_UNITS, 5)).astype(np.float32)
    SpeechTokenizer(
        encoder_name="mfcc", num_units=NUM_UNITS, frame_rate_hz=25.0, sample_rate_hz=16_000, centroids=centers
    ).save(tmp_path / "units")
    table = job_table(store, model__start="warm", model__path=str(tmp_path / "text_lm"), model__size="")
    table["model"] |= {"new_rows": "centroid", "unit_tokenizer": str(tmp_path / "units")}
    table["model"]["markers_like"] = {"speech": "cat", "text": "dog"}
    size = get_size("0.02M")
    job = TrainJob.model_validate(table)
    rows = make_model(job.model, joint, size, CONTEXT, Adaptation()).get_input_embeddings().weight.detach()
    assert joint.SPEECH is not None
    for marker, word in ((joint.SPEECH, "cat"), (joint.SPEECH + 1, "dog")):
        assert torch.equal(rows[marker], rows[joint.text_tokenizer.token_to_id(word)])
    units = rows[joint.unit_start : joint.unit_start + NUM_UNITS]
    near, far = (torch.pdist(torch.as_tensor(values)) for values in (centers, units))
    assert float(torch.corrcoef(torch.stack([near, far]))[0, 1]) > 0.5, "near clusters do not have near rows"
    table["model"]["markers_like"] = {"speech": "nowhere"}
    with pytest.raises(DataError, match=r"markers_like.speech: no token 'nowhere'"):
        make_model(TrainJob.model_validate(table).model, joint, size, CONTEXT, Adaptation())
    with pytest.raises(ValueError, match="belong together"):
        TrainJob.model_validate(job_table(store, model__new_rows="centroid"))


def test_a_model_that_drops_activations_is_refused_and_loading_switches_that_off(store: Path, tmp_path: Path) -> None:
    model = new_model(get_size("opt:0.1M"), 50, 32, seed=0)
    model.config.dropout = 0.1
    with pytest.raises(DataError, match=r"drops activations at random \(dropout\)"):
        require_fit(model, 50, prepare(TrainJob.model_validate(job_table(store))).config)
    save_model(model, tmp_path / "opt")
    assert load_model(tmp_path / "opt").config.dropout == load_text_lm(tmp_path / "opt").config.dropout == 0
