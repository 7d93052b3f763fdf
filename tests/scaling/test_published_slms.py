"""Would catch: a number copied wrongly or under another metric, direction, StoryCloze version or sBLIMP mean; a number
from memory that passes as read; a row lost on the way into the package."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from speechscale.errors import DataError
from speechscale.scaling.published_slms import (
    MEANS,
    METRICS,
    VERIFIED,
    VERSIONS,
    published,
    published_scores,
    published_system,
)

RAW = {
    "sWUGGY_inter": ("sWUGGY", "ss"),
    "sWUGGY_all": ("sWUGGY all", "ss"),
    "sBLIMP": ("sBLIMP", "ss"),
    "sSC_speech": ("sSC", "ss"),
    "sSC_s2t": ("sSC", "st"),
    "sSC_t2s": ("sSC", "ts"),
    "sSC_text": ("sSC", "tt"),
    "tSC_speech": ("tSC", "ss"),
    "tSC_s2t": ("tSC", "st"),
    "tSC_t2s": ("tSC", "ts"),
    "tSC_text": ("tSC", "tt"),
    "genppl": ("GenPPL", ""),
    "auto_bleu": ("Auto-BLEU", ""),
}


def value(system: str, metric: str, direction: str = "ss", mean: str | None = None) -> float:
    (found,) = [
        s.value
        for s in published_system(system)
        if (s.metric, s.direction) == (metric, direction) and mean in (None, s.mean)
    ]
    return found


def test_numbers_typed_from_the_papers() -> None:
    # SIMS Table 2: S, S>T, T>S, T of sSC, then of tSC
    names = [("sSC", d) for d in ("ss", "st", "ts", "tt")] + [("tSC", d) for d in ("ss", "st", "ts", "tt")]
    table = {
        "Spirit LM Base, official weights (SIMS eval)": (62.80, 68.49, 62.63, 72.67, 90.01, 94.74, 79.77, 97.33),
        "SIMS L3": (58.23, 66.10, 60.56, 73.01, 86.22, 90.37, 76.31, 96.26),
        "SIMS Q 1.5B": (55.80, 60.73, 58.28, 66.92, 83.87, 76.91, 71.73, 92.73),
        "SIMS Q 3B": (57.00, 61.38, 58.23, 65.47, 85.36, 75.16, 71.11, 88.88),
        "SIMS Q 7.6B small budget": (58.73, 66.23, 60.10, 72.85, 87.67, 91.35, 76.11, 96.26),
        "SIMS Q 7.6B large budget": (60.33, 67.73, 60.65, 72.47, 88.27, 93.29, 75.34, 95.67),
    }
    for system, row in table.items():
        assert tuple(value(system, *name) for name in names) == row
    assert value("Qwen2.5-7B, before training (SIMS eval)", "tSC", "tt") == 97.92
    assert value("SIMS 7B", "sSC") == 66.7
    assert value("Slam scaled (2 A100)", "GenPPL", "") == 46.6
    assert value("GLM-4-Voice 9B base", "sSC", "st") == 76.3
    assert value("gslm-scaling-823m-82b", "sBLIMP", mean="macro") == 61.33
    assert value("gslm-scaling-823m-82b", "sBLIMP", mean="pair") == 58.36
    assert value("Pythia 6.9B (text topline)", "BLiMP", "tt") == 80.0
    assert value("AlignSLM-7B", "tSC") == 86.8
    assert published_system("SIMS 7B")[0].flops == 6.86e20
    assert published_system("AlignSLM-7B")[0].preference_tokens == 158e9


def test_equals_the_collected_table(shared: Path) -> None:
    file = shared / "reference" / "published_slm_results.csv"
    if not file.is_file():
        pytest.skip("the collected table is not there")
    ours = {(s.system, s.metric, s.direction, s.mean == "pair"): s for s in published_scores()}
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    compared = 0
    for row in rows:
        for column, (metric, direction) in RAW.items():
            if not row[column]:
                continue
            if row["modality"] == "text" and metric == "sBLIMP":
                metric, direction = "BLiMP", "tt"
            score = ours[row["system"], metric, direction, False]
            assert score.value == float(row[column]), (row["system"], column)
            assert score.url == row["source_url"]
            assert (score.verified in ("read", "quoted")) == (row["verified"] != "no")
            compared += 1
    assert len(rows) >= 80
    assert compared >= 250


def test_what_was_not_seen_is_not_handed_out_unless_asked() -> None:
    seen = {s.system for s in published("sWUGGY")}
    assert not seen & {"TWIST-7B (in-vocab sWUGGY)", "AudioLM (in-vocab sWUGGY)"}
    asked = published("swuggy", verified=("read", "quoted", "recall"))
    assert {s.value for s in asked if s.verified == "recall"} == {83.6, 84.1, 83.7}
    assert all("UNVERIFIED" in s.label for s in published_scores() if s.verified in ("digest", "recall"))
    assert all(s.verified == "digest" for s in published_system("SylReg-LM 7B"))


def test_versions_means_and_kinds_are_kept_apart() -> None:
    assert {s.system for s in published("sBLIMP", mean="macro") if "gslm" not in s.system} == {
        "Cuervo & Marxer best 823M"
    }
    assert all("gslm-scaling" in s.system for s in published("sBLIMP", mean="pair"))
    assert {s.version for s in published("sSC", direction="tt")} == {"text"}
    many = published("tSC", direction="ss", version="multi-speaker")
    assert len(many) == 6
    assert all(s.where == "Table 2" for s in many)
    models = {s.system for s in published("sSC")}
    assert not models & {"Human", "Predicted optimal (Cuervo law at 1 A5000 day)"}
    assert [s.value for s in published("sSC", kinds=("human",))] == [79.9]


def test_every_row_says_what_it_is() -> None:
    scores = published_scores()
    assert (len({s.system for s in scores}), len(scores), len({s.source for s in scores})) == (86, 373, 13)
    keys = [(s.system, s.metric, s.direction, s.mean) for s in scores]
    assert len(set(keys)) == len(keys)
    for s in scores:
        assert s.metric in METRICS
        assert s.version in VERSIONS
        assert (s.metric in ("sSC", "tSC")) == bool(s.version)
        assert s.mean in MEANS
        assert s.verified in VERIFIED
        assert s.source
        assert len(s.caveat) <= 80
        if s.metric not in ("GenPPL", "Auto-BLEU"):
            assert 45 < s.value < 100


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(DataError, match="sBLIMP"):
        published("sBLMP")
    with pytest.raises(DataError, match="multi-speaker"):
        published("sSC", version="multispeaker")
    with pytest.raises(DataError, match="SIMS 7B"):
        published_system("SIMS 8B")
