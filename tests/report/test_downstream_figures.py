"""Would catch: a line drawn where none holds, points without errors, an arm that is left out of the words."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.report.downstream_figures import link_figures, link_rows
from speechscale.scaling.analysis import analyze
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
    assert titles[1] == "story text->text<br><span style='font-size:10px'>interleaved: no slope</span>"


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
