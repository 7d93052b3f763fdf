"""Would catch: a typo that silently becomes a default, parts that share a name but not a recipe."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from speechscale.errors import DataError
from speechscale.study.loading import load_study, parse_override, resolve, shipped_studies

BASE: dict[str, Any] = {
    "study": {"name": "t", "question": "does it load?", "seed": 3},
    "corpus": {"kind": "storyworld", "speech_hours": 0.1},
    "arms": {
        "textless": {"start": "scratch", "mixture": {"speech": 1}, "learning_rates": [4e-3]},
        "interleaved": {
            "start": "warm",
            "mixture": {"speech": 1, "text": 1, "interleaved": 2},
            "learning_rates": [1e-2],
        },
    },
    "grid": {"sizes": ["0.05M"], "budgets_flops": [1e11]},
}


def changed(**sections: Any) -> dict[str, Any]:
    data = copy.deepcopy(BASE)
    for name, value in sections.items():
        data[name] = {**data.get(name, {}), **value}
    return data


def test_parts_inherit_and_override_key_by_key() -> None:
    data = changed(parts={"a": {"grid": {"seeds": [0, 1]}}, "b": {"use_arms": ["textless"]}})
    study = resolve(data)
    assert study.parts["a"].grid.seeds == (0, 1)
    assert study.parts["a"].grid.sizes == ("0.05M",)
    assert study.parts["a"].seed == 3
    assert list(study.parts["b"].arms) == ["textless"]
    assert study.parts["a"].arms["interleaved"].mixture == {"interleaved": 0.5, "speech": 0.25, "text": 0.25}
    assert study.parts["a"].arms["interleaved"].vocabulary == "joint"
    assert study.parts["a"].arms["textless"].vocabulary == "textless"


def test_subwords_name_the_units_and_the_vocabulary() -> None:
    subwords = {"units": {"subwords": {"kind": "bpe", "size": 300}}, "arms": {**BASE["arms"]}}
    subwords["arms"]["pieces"] = {**BASE["arms"]["interleaved"], "subwords": True}
    part = resolve(changed(**subwords)).parts["main"]
    assert part.units.name == "adapted-bpe300"
    assert part.arms["pieces"].vocabulary == "joint-subwords"
    assert part.arms["textless"].vocabulary == "textless"


def test_interleaving_of_spirit_lm_and_a_curriculum() -> None:
    spirit = {"speech_span": "uniform(5,15)", "text_span": "uniform(10,30)", "share": "expectation"}
    part = resolve(changed(interleave={**spirit, "speech_share": "none"})).parts["main"]
    assert part.interleave.config.rule.share == pytest.approx(1 / 3)
    rising = resolve(
        changed(interleave={"curriculum": [{"at": 0.0, "speech_share": 0.1}, {"at": 1.0, "speech_share": 0.5}]})
    )
    assert rising.parts["main"].interleave.config.at(0.5).speech_share == pytest.approx(0.3)


def test_an_arm_s_interleaving_is_the_part_s_but_for_its_own_keys() -> None:
    own = {**BASE["arms"]["interleaved"], "interleave": {"speech_share": 0.7}}
    data = changed(
        interleave={"speech_span": "poisson(2)"}, arms={"much": own}, parts={"a": {"interleave": {"gap": "keep"}}}
    )
    part = resolve(data).parts["a"]
    assert part.arms["much"].interleave is not None, "show prints it resolved"
    config = part.interleave_of(part.arms["much"])
    assert (config.speech_share, config.speech_span, config.gap) == (0.7, "poisson(2)", "keep")
    assert part.interleave_of(part.arms["interleaved"]).speech_share == 0.3


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"learnin_rate": 1}}, r"train\.learnin_rate: unknown key; did you mean 'learning_rate_scaling'"),
        ({"trian": {"context": 1}}, r"unknown section \[trian\]; did you mean 'train'"),
        ({"corpus": {"speech_hour": 1}}, r"corpus\.speech_hour: unknown key; did you mean 'speech_hours'"),
        ({"corpus": {"speech_hours": -1}}, r"corpus\.speech_hours: .*greater than 0.*got -1"),
        ({"grid": {"tokens_per_param": [20]}}, "exactly one of budgets_flops, tokens_per_param and tokens"),
        ({"grid": {"sizes": ["0.05M", "0.05M"]}}, "sizes has an entry twice"),
        ({"fit": {"baseline": "textles"}}, "fit.baseline 'textles' is not an arm"),
        ({"parts": {"A b": {}}}, "part name 'A b'"),
        ({"parts": {"a": {"use_arms": ["nobody"]}}}, "no arm 'nobody'"),
        ({"parts": {"a": {"gird": {}}}}, r"parts\.a\.gird; did you mean 'grid'"),
        ({"parts": {"a": {}, "b": {"corpus": {"speech_hours": 0.2}}}}, "both name their corpus 'main' but differ"),
        ({"corpus": {"kind": "folder", "path": "x", "speech_hours": 1}}, "corpus.speech_hours: unknown key"),
        ({"evals": {"directions": ["xx"]}}, "evals.directions"),
        ({"interleave": {"speech_span": "poison(3)"}}, r"interleave: interleave\.speech_span 'poison\(3\)': allowed"),
        ({"interleave": {"speech_span": "fixed(1)", "share": "expectation", "speech_share": 0.9}}, "interleave"),
        ({"interleave": {"mean_span_words": 3.0}}, r"interleave\.mean_span_words: unknown key"),
        ({"interleave": {"curriculum": [{"at": 0.5}, {"at": 0.5}]}}, "each above the last"),
        ({"interleave": {"markers": False}, "evals": {"sets": ["facts"], "directions": ["st"]}}, "markers is off"),
        ({"arms": {"a": {**BASE["arms"]["textless"], "subwords": True}}}, r"arms\.a\.subwords needs a section"),
        ({"units": {"subwords": {"knd": "bpe"}}}, r"units\.subwords\.knd: unknown key"),
        ({"train": {"branches": True}}, "branches need schedule = 'wsd'.*it is 'cosine'"),
        (
            {
                "train": {"branches": True, "schedule": "wsd"},
                "interleave": {"curriculum": [{"at": 0.0, "speech_share": 0.1}, {"at": 1.0, "speech_share": 0.5}]},
            },
            "train.branches: .*curriculum of arm 'interleaved' stretches with the length; set branches = false",
        ),
        ({"arms": {"a": {**BASE["arms"]["textless"], "family": "bloom"}}}, r"arms\.a\.family: .*'gpt_neox'"),
        (
            {"arms": {"a": {**BASE["arms"]["interleaved"], "interleave": {"speech_shar": 0.5}}}},
            r"arms\.a\.interleave\.speech_shar: unknown key; did you mean 'speech_share'",
        ),
        ({"units": {"fitted_on": "nobody"}}, "units.fitted_on = 'nobody': no part with the corpus 'nobody'"),
        ({"corpus": {"test_voices": 0}}, r"corpus\.test_voices: .*greater than or equal to 1"),
    ],
)
def test_mistakes_are_refused_by_name(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(changed(**sections))


def test_overrides_are_toml_values() -> None:
    assert parse_override("grid.seeds=[0, 1]") == ("grid.seeds", [0, 1])
    assert parse_override("corpus.path=my/dir") == ("corpus.path", "my/dir")
    with pytest.raises(DataError, match="expected KEY=VALUE"):
        parse_override("novalue")


def test_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no study 'quik'.*did you mean 'quick'"):
        load_study("quik")
    broken = tmp_path / "x.toml"
    broken.write_text("[study]\nname = 'a'\nname = 'b'\n")
    with pytest.raises(DataError, match="not a TOML file"):
        load_study(str(broken))


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_shipped_studies_load_and_open_with_paper_cost_and_expectation(name: str) -> None:
    study = load_study(name)
    assert study.study.name == name
    assert study.study.question
    assert study.study.cost
    assert study.study.expect
