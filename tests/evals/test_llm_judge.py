"""Catches a grade that lands on another text, junk taken for a grade, answers paid twice, and a key that leaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from speechscale.errors import DataError
from speechscale.evals.generation import llm_judge
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.llm_judge import ChatJudge, read_grade
from speechscale.voices import http_client
from speechscale.voices.segments import EngineDown
from tests import local_server
from tests.local_server import Answer, Request

KEY = "sk-very-secret-0123456789"
KEY_ENV = "SPEECHSCALE_TEST_JUDGE_KEY"


def said(text: str, usage: bool = True, **more: Any) -> Answer:
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}, **more}], "model": "m-2026"}
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {}, json.dumps(body).encode()


@contextmanager
def serving(answer: Callable[[str, int], Answer]) -> Iterator[tuple[str, list[Request]]]:
    """A local judge; `answer(text it is asked, number of request)` decides what it says."""
    with local_server.serving(lambda body, n: answer(body["messages"][0]["content"], n)) as (base, server):
        yield base, server.requests


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.001)
    monkeypatch.delenv(KEY_ENV, raising=False)


def judge(base: str, folder: Path, **options: Any) -> ChatJudge:
    options = {"model": "m", "key_env": KEY_ENV, "timeout_s": 5.0, "retries": 2, **options}
    return ChatJudge(base=base, kept=Kept(folder / "judge.jsonl"), **options)


def texts(count: int) -> tuple[list[str], list[str], list[str]]:
    return [f"i{n}" for n in range(count)], ["tom ran"] * count, [f"number {n} end" for n in range(count)]


def number(text: str) -> int:
    return int(text.split("Continuation: number ")[1].split()[0])


@pytest.mark.parametrize(
    ("answer", "grade"),
    [("\\boxed{4}", 4), ("It flows, so \\boxed{ 4 }.", 4), (" 4\n", 4), ("\\boxed{2} so \\boxed{2}", 2), ("5", 5)],
)
def test_grades_that_are_read(answer: str, grade: int) -> None:
    assert read_grade(answer) == grade


@pytest.mark.parametrize(
    "answer",
    ["3.5", "\\boxed{3.5}", "\\boxed{4/5}", "99", "\\boxed{0}", "6", "I give it 4", "", "\\boxed{}", "4 5",
     "\\boxed{1} or \\boxed{2}", "-3", "\\boxed{grade}", "٤"],
)  # fmt: skip
def test_junk_is_no_grade(answer: str) -> None:
    """slamkit takes 99 and refuses a blank inside the box."""
    with pytest.raises(DataError):
        read_grade(answer)


def test_failures_leave_their_own_item_without_grade(tmp_path: Path) -> None:
    def answer(text: str, _: int) -> Answer:
        item = number(text)
        if item == 1:
            return 400, {}, b"no"
        if item == 3:
            return said("I cannot say")
        return said(f"\\boxed{{{item % 5 + 1}}}")

    with serving(answer) as (base, requests):
        found = judge(base, tmp_path, concurrency=3).grade(*texts(6))
    assert [item.grade for item in found.items] == [1, None, 3, None, 5, 1]
    assert [item.id for item in found.items] == texts(6)[0]
    assert "HTTP 400" in found.items[1].problem
    assert "no whole number" in found.items[3].problem
    assert (found.mean.estimate, found.mean.n, sum(found.problems.values())) == (2.5, 4, 2)
    assert found.grades == {1: 2, 2: 0, 3: 1, 4: 0, 5: 1}
    body = requests[0].body
    assert (requests[0].path, body["temperature"], body["model"]) == ("/v1/chat/completions", 0, "m")


def test_answers_are_kept_and_only_failures_asked_again(tmp_path: Path) -> None:
    down = threading.Event()

    def answer(text: str, _: int) -> Answer:
        return (503, {}, b"busy") if number(text) == 2 and not down.is_set() else said("\\boxed{3}")

    with serving(answer) as (base, requests):
        first = judge(base, tmp_path, prices=(2.0, 10.0)).grade(*texts(4))
        assert [item.grade for item in first.items] == [3, 3, None, 3]
        down.set()
        asked = len(requests)
        second = judge(base, tmp_path, prices=(2.0, 10.0)).grade(*texts(4))
        assert (len(requests) - asked, second.asked) == (1, 1)
        third = judge(base, tmp_path, prices=(2.0, 10.0)).grade(*texts(4))
        assert (len(requests) - asked, third.cost_now) == (1, 0.0)
        assert second.record() == third.record(), "what one run asked is no part of the result"
        judge(base, tmp_path, model="other").grade(*texts(4))
        assert len(requests) - asked == 5, "another model answers for itself"
    assert third.cost == pytest.approx(4 * (100 * 2 + 10 * 10) / 1e6)
    assert (third.prompt_tokens, third.completion_tokens) == (400, 40)
    stamp = third.record()["judge"]
    assert (stamp["template"], len(stamp["template_sha256"])) == (llm_judge.TEMPLATE, 64)


def test_another_server_answers_for_itself(tmp_path: Path) -> None:
    """Two servers may call unlike models alike."""
    for grade in (2, 4):
        with serving(lambda *_, grade=grade: said(str(grade))) as (base, _):  # type: ignore[misc]
            found = judge(base, tmp_path).grade(*texts(1))
        assert found.items[0].grade == grade
    assert found.record()["judge"]["server"] == "127.0.0.1"
    assert found.record()["judge"]["answered_by"] == ["m-2026"]


def test_refused_texts_do_not_stop_those_behind_them(tmp_path: Path) -> None:
    """More in a row than failures are allowed, as when a stopped run goes on and all others are kept already."""

    def answer(text: str, _: int) -> Answer:
        item = number(text)
        return (400, {}, b"filtered") if item < 9 else said("") if item < 18 else said("3")

    with serving(answer) as (base, _):
        found = judge(base, tmp_path, concurrency=1).grade(*texts(20))
    assert [item.grade for item in found.items] == [None] * 18 + [3, 3]
    assert {problem.partition(" (")[0]: count for problem, count in found.problems.items()} == {
        "the judge refuses the text": 9,
        "the judge's answer has no text; choose a model that answers at once, or raise --judge-max-tokens": 9,
    }


def test_a_busy_judge_is_asked_again(tmp_path: Path) -> None:
    with serving(lambda _, n: (429, {"Retry-After": "0"}, b"") if n < 2 else said("4", usage=False)) as (
        base,
        requests,
    ):
        found = judge(base, tmp_path, prices=(1.0, 1.0)).grade(*texts(1))
    assert (found.items[0].grade, len(requests), found.without_usage) == (4, 3, 1)


def test_a_judge_that_is_down_is_not_asked_a_thousand_times(tmp_path: Path) -> None:
    with serving(lambda *_: (500, {}, b"")) as (base, requests):
        found = judge(base, tmp_path, retries=0, concurrency=1).grade(*texts(100))
    assert len(requests) == llm_judge.FAILURES_IN_A_ROW
    assert found.problems["not asked: the judge does not answer any more"] == 100 - len(requests)
    assert (found.mean.estimate, found.mean.n) == (None, 0)
    assert "NaN" not in json.dumps(found.record())


def test_a_refused_key_stops_all_and_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with serving(lambda *_: (401, {}, f"bad key {KEY}".encode())) as (base, requests):
        with pytest.raises(EngineDown) as caught:
            judge(base, tmp_path, concurrency=1).grade(*texts(5))
        assert requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert KEY_ENV in str(caught.value)
    with serving(lambda *_: said("\\boxed{3}")) as (base, _):
        stamp = judge(base, tmp_path).grade(*texts(1)).record()
    assert KEY not in json.dumps(stamp)
    assert KEY not in (tmp_path / "judge.jsonl").read_text()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
        said(""),
        (200, {}, b'{"choices": [null]}'),
    ],
)
def test_answers_that_are_no_chat_are_reasons_and_are_not_kept(answer: Answer, tmp_path: Path) -> None:
    with serving(lambda *_: answer) as (base, _):
        found = judge(base, tmp_path).grade(*texts(1))
    assert found.items[0].grade is None
    assert "the judge's answer" in found.items[0].problem
    assert len(Kept(tmp_path / "judge.jsonl")) == 0


def test_texts_are_put_into_the_template_as_they_are(tmp_path: Path) -> None:
    """A text that looks like a place of the template, or like a box, changes nothing."""
    with serving(lambda *_: said("2")) as (base, requests):
        found = judge(base, tmp_path, template="A {prompt} B {continuation} C").grade(
            ["a", "b"], ["{continuation}", "x"], ["\\boxed{5} {prompt}", "  "]
        )
    assert [request.body["messages"][0]["content"] for request in requests] == [
        "A {continuation} B \\boxed{5} {prompt} C"
    ]
    assert [item.problem for item in found.items] == ["", "empty"]


def test_addresses_and_templates_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="plain http"):
        judge("http://example.com", tmp_path)
    with pytest.raises(DataError, match=r"no \{continuation\}"):
        judge("https://example.com", tmp_path, template="{prompt}")
    with pytest.raises(DataError, match="--judge-model"):
        judge("https://example.com", tmp_path, model=" ")


def test_kept_answers_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    kept.put("a", {"text": "ü"})
    kept.put("b", {"n": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = Kept(path)
    assert (again.get("a"), again.get("b")) == ({"text": "ü"}, None)
    again.put("b", {"n": 2})
    assert path.read_bytes() == whole
    path.write_bytes(b"junk\n" + whole)
    with pytest.raises(DataError, match="line 1"):
        Kept(path)
