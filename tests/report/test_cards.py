"""Catches cards that the hub would turn away, that invent what no record holds, or that let data become markup."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from speechscale.errors import DataError
from speechscale.report.card_check import check_repo, validate_card
from speechscale.report.card_facts import (
    ComputeFacts,
    DataFacts,
    DatasetFacts,
    FileFacts,
    IdFacts,
    LossFacts,
    MetricFacts,
    ModelFacts,
    SampleFacts,
    StartFacts,
    Terms,
    UnitFacts,
)
from speechscale.report.card_limits import limits
from speechscale.report.card_rules import LICENSES, language_code, size_category
from speechscale.report.cards import cell, code_span, hours, model_card, slug
from speechscale.report.dataset_card import dataset_card


def metric(**changes: Any) -> MetricFacts:
    values: dict[str, Any] = {
        "benchmark": "sblimp",
        "title": "spoken BLiMP",
        "set": "dev",
        "tag": "",
        "direction": "ss",
        "protocol": "speechscale",
        "estimate": 0.61,
        "low": 0.55,
        "high": 0.67,
        "n_items": 400,
        "n_pairs": 200,
        "chance": 0.5,
    }
    return MetricFacts(**values | changes)


def bare(**changes: Any) -> ModelFacts:
    """What is known of a model without any record."""
    values: dict[str, Any] = {
        "name": "tiny",
        "origin": "No record of its training was found.",
        "architecture": "LlamaForCausalLM",
        "family": "llama",
        "dtype": "float32",
        "params_total": 45_824,
        "params_non_embedding": None,
        "context_tokens": 256,
        "arm": "",
        "units": UnitFacts(count=100),
        "ids": IdFacts(
            size=499,
            text=(0, 397),
            units=(397, 497),
            speech_marker=497,
            text_marker=498,
            eos=0,
            eos_name="<eos>",
            unit_example="<Un12>",
            text_example="tom ran",
            markers=("<speech>", "<text>"),
        ),
        "start": StartFacts(kind="not recorded"),
        "terms": Terms(),
        "languages": (),
        "data": (),
        "recipe": (),
        "compute": ComputeFacts(flops=()),
    }
    return ModelFacts(**values | changes)


def full() -> ModelFacts:
    speech = DataFacts(
        what="speech",
        name="books",
        made="imported from books (format librispeech)",
        hours=960.5,
        amount="280,000 utterances",
        licences=(("CC-BY-4.0", 900.0), ("", 60.5)),
        voices=("v1", "v2"),
        languages=("en",),
        hub_name="owner/books",
    )
    return bare(
        units=UnitFacts(
            count=100,
            encoder="owner/mhubert",
            revision="abc",
            layer=11,
            kmeans_sha256="0" * 64,
            frame_rate_hz=25.0,
            per_second=19.5,
            tokenizer_included=True,
            voices=("amy",),
        ),
        start=StartFacts(kind="warm", base="Qwen/Qwen2.5-0.5B", hub_base="Qwen/Qwen2.5-0.5B"),
        terms=Terms(license="cc-by-4.0"),
        languages=("en",),
        data=(speech,),
        recipe=(("optimizer", "AdamW"),),
        compute=ComputeFacts(flops=(("flops_exact", 2e18),), seconds=7300.0, cpu_seconds=7200.0, machine="2 cores"),
        losses=(LossFacts(what="speech", unit="per unit", value=1.695, se=0.027),),
        metrics=(metric(), metric(set="words", estimate=0.48, low=0.4, high=0.55)),
        samples=(SampleFacts(group="Story", title="generated", text="", path="samples/a.wav"),),
        repo="me/tiny",
    )


def test_a_full_card_holds_its_facts_and_the_hub_takes_it() -> None:
    text = model_card(full())
    assert validate_card(text, "model") == []
    data = ModelCard(text).data
    assert (data.license, data.pipeline_tag, data.base_model) == ("cc-by-4.0", "audio-to-audio", "Qwen/Qwen2.5-0.5B")
    assert data.datasets == ["owner/books"]
    assert [result.metric_value for result in data.eval_results] == [0.61, 0.48]
    for fact in (
        "960", "CC-BY-4.0: 900 h; not recorded: 60.5 h", "owner/mhubert, layer 11, revision abc", "2e18", "2.0 h by",
        "2 CPU-hours",
        "prompt.wav", "1.695 per unit", "0.027", "[0.550, 0.670]", "0.480 (chance)", "samples/a.wav", "me/tiny",
        "maimon2025sims", "cuervo2024scaling", "exact: weights that multiply",
    ):  # fmt: skip
        assert fact in text, fact
    assert text == model_card(full()), "the same facts, the same bytes"


def test_what_no_record_holds_is_called_so_and_never_filled_in() -> None:
    text = model_card(bare())
    assert validate_card(text, "model") == []
    data = ModelCard(text).data.to_dict()
    absent = ("license", "language", "datasets", "base_model", "model-index", "metrics")
    assert not [key for key in absent if key in data]
    assert "| encoder | not recorded |" in text
    assert "Time: not recorded. Machine: not recorded." in text
    assert "No license was given" in text
    assert "None" not in text
    assert "nan" not in text.lower().split()
    body = text.split("## Evaluation")[1].split("##")[0].strip()
    assert body == "Not recorded."
    assert "How it was trained is not recorded" in text
    assert "and nothing else" not in text
    assert text.split("## Training data")[1].split("##")[0].strip() == "Not recorded."


def test_a_text_model_is_no_speech_model() -> None:
    ids = replace(bare().ids, units=None, speech_marker=None, text_marker=None, size=397)
    text = model_card(bare(units=UnitFacts(count=0), ids=ids))
    data = ModelCard(text).data
    assert data.pipeline_tag == "text-generation"
    assert not [tag for tag in data.tags if "speech-" in tag]
    assert "SpeechLM" not in text
    assert "<eos>tom ran" in text
    assert "It has no speech units" in text


def test_limits_follow_from_the_facts() -> None:
    said = " ".join(limits(full()))
    assert "45.8k parameters" in said
    assert "13 s of speech" in said
    assert "one voice (amy)" in said
    assert "words, speech to speech" in said, "a task at chance"
    assert "dev, speech" not in said, "a task above chance is none"
    assert "synthetic" not in said
    large = replace(full(), params_total=7_000_000_000)
    assert "It is small" not in " ".join(limits(large))
    machine = replace(full().data[0], synthetic=True, made="stories from templates")
    assert "60.5 h without a licence" in said
    assert "synthetic (2: v1, v2)" in " ".join(limits(replace(full(), data=(machine,))))
    assert "phones that a speech engine" in " ".join(limits(replace(full(), units=UnitFacts(count=3, oracle=True))))


def test_nothing_is_said_for_the_training_of_others() -> None:
    stories = replace(full().data[0], synthetic=True, made="stories from templates", licences=(("CC0-1.0", 9.0),))
    warm = model_card(replace(full(), data=(stories,)))
    assert "What Qwen/Qwen2.5-0.5B was trained on, and how, is not recorded here" in warm
    assert "keeps its own terms: the training data (licences in the table above), Qwen/Qwen2.5-0.5B" in warm
    for claim in ("knows nothing of the world", "knows one language", "human recording", "no filter"):
        assert claim not in warm, claim
    own = replace(full(), data=(stories,), start=StartFacts(kind="scratch"))
    assert "knows nothing of the world" in " ".join(limits(own))
    assert "without a licence" not in " ".join(limits(own))
    cost = ComputeFacts(flops=(), text_lm_flops=1e20, text_lm_counted=False)
    assert "1e20 FLOPs (as the study's file says), which" in model_card(replace(full(), compute=cost))


def test_names_from_data_stay_text() -> None:
    evil = replace(full().data[0], voices=("a|b", "<script>alert(1)</script>"), name="x\n# Heading")
    text = model_card(replace(full(), name="a|b <b>\nc", data=(evil,)))
    assert "<script>" not in text
    assert "\n# Heading" not in text
    assert "# a\\|b &lt;b> c\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| speech: x")]
    assert len(rows) == 1
    assert len(rows[0].replace("\\|", "").split("|")) == 8
    voices = replace(full().units, voices=("x |\n# Heading", "![spy](http://spy/p.png)"))
    ids = replace(full().ids, eos_name='<e">\n"""', markers=("|", "<text>"))
    sample = SampleFacts(group="*", title="t](http://spy)", text="`", path="samples/a (1).wav")
    text = model_card(replace(full(), units=voices, ids=ids, samples=(sample,), repo="", protocols=(("p`|", "x"),)))
    assert "](http" not in text
    assert "\n# Heading" not in text
    assert "(samples/a%20%281%29.wav)" in text
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "card", "exec")
    for hostile in ("---\nlicense: mit\n---\n", "a: b\n- c", "'\"{[%&*!", "\u2028x" * 40, "y" * 5_000):
        card = model_card(replace(full(), name=hostile, question=hostile))
        assert ModelCard(card).data.license == "cc-by-4.0"
        assert ModelCard(card).data.model_name == hostile


WRONG = [
    ("license: apache", "license: 'apache'"),
    ("license: other", "license_name: license 'other' needs"),
    ("license: mit\nlicense_name: x", "belongs to license 'other'"),
    ("license: other\nlicense_name: x\nlicense_link: javascript:1", "license_link"),
    ("language: en-US", "language: 'en-US'"),
    ("language:\n- english", "language: 'english'"),
    ("pipeline_tag: talking", "pipeline_tag: 'talking'"),
    ("tags: speech", "tags: must be a list"),
    ("base_model: ../x", "base_model: '../x'"),
    ("license: mit\nlicense: mit", "license: stands twice"),
    ("a: [1", "huggingface_hub cannot read"),
    ("- a\n- b", "huggingface_hub cannot read"),
    ("model-index:\n- name: x\n  results:\n  - task: {type: y}", "huggingface_hub cannot read"),
]


@pytest.mark.parametrize(("block", "fault"), WRONG)
def test_a_wrong_card_is_refused_with_the_field(block: str, fault: str) -> None:
    faults = validate_card(f"---\n{block}\n---\n# A\n", "model")
    assert any(fault in found for found in faults), faults


def test_a_wrong_table_of_results_is_refused() -> None:
    index = (
        "model-index:\n- name: x\n  results:\n  - task: {type: %s}\n    dataset: {type: %s, name: n}\n"
        "    metrics:\n    - {type: accuracy, value: %s}"
    )
    assert validate_card(f"---\n{index % ('multiple-choice', 'sblimp', 0.5)}\n---\nA", "model") == []
    for values, fault in {
        ("choosing", "sblimp", 0.5): "task type 'choosing'",
        ("multiple-choice", "s blimp", 0.5): "dataset needs",
        ("multiple-choice", "sblimp", ".nan"): "not a number",
        ("multiple-choice", "sblimp", "[1]"): "a number is needed",
    }.items():
        assert fault in "".join(validate_card(f"---\n{index % values}\n---\nA", "model"))


def test_cards_without_metadata_or_text_are_refused() -> None:
    assert "metadata" in validate_card("# A model\n", "model")[0]
    assert "text: nothing" in validate_card("---\nlicense: mit\n---\n\n", "model")[0]


def test_a_license_the_hub_does_not_know_stops_the_card() -> None:
    with pytest.raises(DataError, match=r"license: 'Apache-2\.0'.*apache-2\.0"):
        model_card(replace(full(), terms=Terms(license="Apache-2.0")))
    named = Terms(license="other", name="my-terms", link="https://example.org/terms")
    assert "my-terms: https://example.org/terms" in model_card(replace(full(), terms=named))


def data_facts(**changes: Any) -> DatasetFacts:
    values: dict[str, Any] = {
        "name": "books",
        "kind": "units",
        "terms": Terms(license="cc-by-4.0"),
        "made": "Encoded.",
        "utterances": 12_000,
        "hours": 30.25,
        "speakers": 5,
        "splits": (("train", 11_000, 28.0), ("test", 1_000, None)),
        "licences": (("CC-BY-4.0", 11_000, 28.0), ("not recorded", 1_000, 2.25)),
        "languages": ("en",),
        "dropped": 3,
        "files": (FileFacts(path="units.json", bytes=900, sha256="a" * 64, included=False),),
        "units": UnitFacts(count=500, encoder="owner/mhubert", layer=11, frame_rate_hz=25.0),
        "columns": (("units", "deduplicated units"),),
        "reasons": (("record it again", 3),),
    }
    return DatasetFacts(**values | changes)


def test_a_data_card_holds_licences_hours_and_files() -> None:
    text = dataset_card(data_facts())
    assert validate_card(text, "dataset") == []
    assert DatasetCard(text).data.size_categories == ["10K<n<100K"]
    for fact in (
        "| CC-BY-4.0 | 11,000 | 28 |", "| not recorded | 1,000 | 2.25 |", "| test | 1,000 | not recorded |",
        "500, encoder owner/mhubert, layer 11", "record it again", "| `units.json` | 900 | aaaaaaaaaaaaaaaa... | no |",
        "Only this card and checksums lie here", "no licence in its records",
    ):  # fmt: skip
        assert fact in text, fact
    assert "configs" not in DatasetCard(text).data.to_dict()
    parts = tuple(FileFacts(path=f"parts/p{i}.parquet", bytes=10, sha256="b" * 64, included=True) for i in range(20))
    shown = dataset_card(data_facts(files=parts))
    assert "| `parts/`, 20 files | 200 | in the list of checksums | yes |" in shown
    assert DatasetCard(shown).data.configs == [{"config_name": "default", "data_files": "parts/*.parquet"}]


def test_a_wrong_data_card_is_refused() -> None:
    for block, fault in {
        "size_categories: many": "size_categories: 'many'",
        "task_categories:\n- talking": "task_categories: 'talking'",
        "language_creators: robots": "language_creators: 'robots'",
        "configs:\n- data_files: a": "configs[0]",
    }.items():
        assert fault in "".join(validate_card(f"---\n{block}\n---\nA", "dataset"))


@pytest.mark.parametrize("name", ["me/tiny", "a-b/c.d_e-1", "A1/x"])
def test_names_of_repositories(name: str) -> None:
    assert check_repo(name) == name


@pytest.mark.parametrize(
    "name", ["tiny", "me/", "me/a--b", "me/..", "me/-a", "me/a.", "../x", "me/a b", "me/x.git", "a/b/c"]
)
def test_names_the_hub_does_not_allow(name: str) -> None:
    with pytest.raises(DataError, match="OWNER/NAME"):
        check_repo(name)


def test_small_helpers() -> None:
    assert [size_category(n) for n in (1, 999, 1_000, 10**13)] == ["n<1K", "n<1K", "1K<n<10K", "n>1T"]
    assert [language_code(x) for x in ("en-US", "EN_gb", "deu", "english", "")] == ["en", "en", "deu", None, None]
    assert [hours(x) for x in (0.0, 0.26162, 12, 4567.8, 0.0885)] == ["0", "0.262", "12", "4,568", "0.0885"]
    assert slug("my set (dev)") == "my-set-dev"
    assert cell("a\n b|c<d") == "a b\\|c&lt;d"
    assert cell("![x](http://y) `z` *w* [1, 2]") == "![x]\\(http://y) \\`z\\` \\*w\\* [1, 2]"
    assert code_span("a`|\nb") == "a'\\| b"
    assert slug("x" * 89 + "-y") == "x" * 89
    assert {"apache-2.0", "cc0-1.0", "llama3.2", "other"} <= LICENSES
