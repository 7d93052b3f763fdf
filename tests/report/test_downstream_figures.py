"""Would catch: a line drawn where none holds, points without errors, an arm that is left out of the words."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.report.downstream_figures import link_figures, link_rows, probe_figure
from speechscale.scaling.analysis.analyze import analyze
from tests.scaling.test_part_links import table


@pytest.fixture
def links() -> list[dict]:  # type: ignore[type-arg]
    return analyze(table(0.4), replicates=100)["parts"]["a"]["links"]  # type: ignore[no-any-return]


def test_points_carry_errors_and_only_a_slope_gets_a_line(links: list) -> None:  # type: ignore[type-arg]
    ((title, figure),) = link_figures(links, {"textless": "#111111", "interleaved": "#222222"})
    assert title == "Finished runs: loss on test"
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(t.name, len(t.x), set(t.error_y.array)) for t in points] == [
        ("textless", 9, {0.01}),
        ("interleaved", 9, {0.01}),
        ("interleaved", 9, {0.02}),
    ]
    assert [trace.marker.color for trace in points] == ["#111111", "#222222", "#222222"]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.name for trace in lines] == ["textless", "interleaved"], "text->text has no slope, so no line"
    assert lines[0].x[0] == min(points[0].x)
    assert lines[0].x[-1] == max(points[0].x)
    assert np.polyfit(lines[0].x, lines[0].y, 1)[0] == pytest.approx(-0.4, abs=0.03)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[1] == "story text->text<br><span style='font-size:10px'>no slope: interleaved</span>"


def test_every_verdict_is_said_in_words(links: list) -> None:  # type: ignore[type-arg]
    rows = link_rows(links)
    assert [(row["what"], row["arm"]) for row in rows] == [
        ("story speech->speech, finished runs", "textless"),
        ("story speech->speech, finished runs", "interleaved"),
        ("story speech->speech, finished runs", "all arms"),
        ("story text->text, finished runs", "interleaved"),
    ]
    assert "points of accuracy" in rows[0]["result"]
    assert "do not share one line" in rows[2]["result"]
    assert "a slope of zero is not rejected" in rows[3]["result"]
    assert link_figures([], {}) == []


def test_probes_along_training_stand_over_tokens_with_errors() -> None:
    found = {"story": {"ss": {"estimate": 0.6, "se": 0.02, "n": 8}, "tt": {"estimate": 0.7, "se": None, "n": 8}}}
    curve = {"arm": "textless", "size": "s", "seed": 0, "tokens_seen": [10, 20, 30], "loss": [3.0, 2.0, 1.5]}
    figure = probe_figure([{**curve, "probes": [{}, found, found]}], {"textless": "#111111"})
    assert figure is not None
    spoken, read = figure.data
    assert (list(spoken.x), list(spoken.y), list(spoken.error_y.array)) == ([20, 30], [0.6, 0.6], [0.02, 0.02])
    assert list(read.y) == [0.7, 0.7]
    assert [spoken.showlegend, read.showlegend] == [True, False]
    assert list(figure.layout.yaxis.range) == pytest.approx([0.45 - 0.0068, 0.62 + 0.0068])  # .04 of .17
    flat = {"story": {"ss": {"estimate": 0.5, "se": 0.0, "n": 8}}}
    same = probe_figure([{**curve, "probes": [flat] * 3}], {"textless": "#111111"})
    assert same is not None
    assert list(same.layout.yaxis.range) == pytest.approx([0.446, 0.554])
    assert probe_figure([{**curve, "probes": [{}, {}, {}]}, curve], {}) is None
