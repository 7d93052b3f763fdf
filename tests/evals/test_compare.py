"""Would catch: a difference of unjoined items or with the wrong sign, protocols that aggregate alike, unlike results
that pass in silence, a winner named by luck or by many tries, a record that changes from run to run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from speechscale.errors import DataError
from speechscale.evals.compare import beside_value, compare
from speechscale.evals.likeness import shared_protocols
from speechscale.evals.protocols import PROTOCOLS, get_protocol
from tests.evals.made_results import choices, scored, without

OURS = [PROTOCOLS["speechscale"]]


def test_difference_by_hand() -> None:
    a = scored("a", choices("++--=+-+"))
    b = scored("b", choices("+++-++-="))
    (row,) = compare(a, b, protocols=OURS).rows
    assert row.a == pytest.approx(4.5 / 8)
    assert row.b == pytest.approx(5.5 / 8)
    found = row.difference
    assert found.estimate == pytest.approx(1 / 8)  # +1, +.5, -.5
    assert (found.n_items, found.items_better, found.items_worse) == (8, 2, 1)
    assert row.verdict.startswith("cannot tell: b minus a is +12.5 [")
    (back,) = compare(b, a, protocols=OURS).rows
    assert back.difference.estimate == -found.estimate
    assert back.difference.p == found.p


def test_items_are_joined_by_id_and_not_by_place() -> None:
    a, b = scored("a", choices("+-+-" * 10)), scored("b", choices("+-+-" * 10))
    (row,) = compare(a, replace(b, choices=b.choices[::-1]), protocols=OURS).rows
    assert row.difference.items_better == row.difference.items_worse == 0
    assert row.verdict == "cannot tell: a and b decide alike on every item"


def test_each_protocol_aggregates_in_its_own_way() -> None:
    # pairs of two; phenomenon x has pairs 0 and 2, y has pair 1: differences 1 0 | 0 0 | 1 1
    a, b = (choices(text, per_pair=2, phenomena=("x", "y")) for text in ("-+++--", "++++++"))
    b = [*b[:5], replace(b[5], phenomenon="x")]
    protocols = [get_protocol(f"speechscale:aggregate={name}") for name in ("item", "pair", "macro")]
    rows = compare(scored("a", a), scored("b", b), protocols=protocols).rows
    assert [row.difference.estimate for row in rows] == pytest.approx([3 / 6, 1.5 / 3, 0.75 / 2])
    assert [row.b - row.a for row in rows] == pytest.approx([row.difference.estimate for row in rows])


def test_whole_questions_are_decided_before_they_are_compared() -> None:
    # Questions of two pairs: a gets none right (one pair each), b the first. The lowest difference would be 0 and -1.
    a, b = (choices(text, per_pair=2) for text in ("+--+", "++-+"))
    (row,) = compare(scored("a", a), scored("b", b), protocols=[get_protocol("speechscale:aggregate=all")]).rows
    assert (row.a, row.b, row.difference.estimate) == (0.0, 0.5, 0.5)
    found = row.difference
    assert (found.n_pairs, found.pairs_better, found.pairs_worse) == (2, 1, 0)
    assert (found.n_items, found.items_better, found.items_worse) == (4, 1, 0)
    a, b = (choices(text, per_pair=2) for text in ("+---", "-+--"))  # two items differ, no question does
    (row,) = compare(scored("a", a), scored("b", b), protocols=[get_protocol("speechscale:aggregate=all")]).rows
    assert row.verdict == "cannot tell: a and b are equal on every pair"


def test_each_benchmark_is_decided_by_its_own_protocols() -> None:
    """Of the same layout: otherwise questions of four are averaged as grammar is, and each decides the other's p."""
    of_each = {"sblimp": ("speechscale", "cuervo"), "swag": ("speechscale", "twist")}
    sides = []
    for name, text in (("a", "+-" * 8), ("b", "+" * 16)):
        parts = [scored(name, choices(text, benchmark=on), used) for on, used in of_each.items()]
        merged = {kind: {} for kind in ("benchmarks", "protocols")}
        for part in parts:
            merged["benchmarks"] |= part.results.benchmarks
            merged["protocols"] |= part.results.protocols
        results = replace(parts[0].results, **merged, metrics=[m for part in parts for m in part.results.metrics])
        sides.append(replace(parts[0], results=results, choices=[c for part in parts for c in part.choices]))
    found = [(row.benchmark, row.protocol) for row in compare(*sides).rows]
    assert sorted(found) == [(on, protocol) for on, used in of_each.items() for protocol in sorted(used)]
    asked = [(row.benchmark, row.protocol) for row in compare(*sides, protocols=[PROTOCOLS["twist"]]).rows]
    assert asked == [("sblimp", "twist"), ("swag", "twist")]


def test_a_protocol_reads_the_choices_of_its_layout() -> None:
    sims = PROTOCOLS["sims"]
    sides = [
        scored(name, choices("+" * 20) + choices(text, protocol=sims), ("speechscale", "sims"))
        for name, text in (("a", "+-" * 10), ("b", "+" * 20))
    ]
    found = compare(*sides, protocols=[*OURS, sims])
    assert [(row.protocol, row.difference.estimate) for row in found.rows] == [("speechscale", 0.0), ("sims", 0.5)]
    assert found.rows[1].verdict.startswith("b is better by 50.0 [")


def test_better_needs_more_than_luck() -> None:
    (sure,) = compare(scored("a", choices("-" * 12)), scored("b", choices("+" * 12)), protocols=OURS).rows
    assert sure.verdict == "b is better by 100.0 [47.1, 100.0] points"  # 2 * .025 ** (1 / 12) - 1
    (turned,) = compare(scored("a", choices("+" * 12)), scored("b", choices("-" * 12)), protocols=OURS).rows
    assert turned.verdict == "a is better by 100.0 [47.1, 100.0] points"
    (few,) = compare(scored("a", choices("---")), scored("b", choices("+++")), protocols=OURS).rows
    assert few.verdict == "cannot tell: b minus a is +100.0 [-41.5, 100.0] points"
    a, b = ("-" * 5 + "+" * 30, "+" * 35)  # the interval leaves out zero, five tosses of a coin do not
    (five,) = compare(scored("a", choices(a)), scored("b", choices(b)), protocols=OURS).rows
    assert five.difference.low is not None
    assert five.difference.low > 0
    assert five.verdict.endswith("points, but p = 0.062")
    (one,) = compare(scored("a", choices("-")), scored("b", choices("+")), protocols=OURS).rows
    assert "a single pair (of a phenomenon) has no interval" in one.verdict


def test_many_comparisons_are_counted_and_adjusted() -> None:
    a, b = [], []
    for name in "stuvw":
        a += choices("-" * 6 + "+" * 30, set=name)
        b += choices("+" * 36 if name == "s" else "-" * 6 + "+" * 30, set=name)
    alone = compare(scored("a", a[:36]), scored("b", b[:36]), protocols=OURS).rows[0]
    assert alone.difference.p == alone.p_holm == pytest.approx(2 / 2**6)
    assert alone.verdict.startswith("b is better")
    among = compare(scored("a", a), scored("b", b), protocols=OURS).rows[0]
    assert among.p_holm == pytest.approx(5 * 2 / 2**6)
    assert among.verdict.endswith("p = 0.16, adjusted for 5 comparisons")


def test_tags_are_further_comparisons() -> None:
    sides = [
        scored(name, choices("+-", tag="heard") + [replace(c, id=c.id + "r", tag="read") for c in choices("+-")])
        for name in "ab"
    ]
    assert [row.tag for row in compare(*sides, protocols=OURS, tags=True).rows] == ["", "heard", "read"]
    assert [row.difference.n_items for row in compare(*sides, protocols=OURS, tags=True).rows] == [4, 2, 2]
    assert len(compare(*sides, protocols=OURS).rows) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "e" * 64}, "benchmark sblimp sha256: dddddddddddd... against eeeeeeeeeeee..."),
        ({"precision": "bf16"}, "precision: fp32 against bf16"),
        ({"long": "windows"}, "long: refuse against windows"),
    ],
)
def test_unlike_stamps_are_named_and_refused(change: dict[str, str], said: str) -> None:
    a, b = scored("a", choices("+-+-")), scored("b", choices("++++"), **change)
    with pytest.raises(DataError, match="not measured alike") as caught:
        compare(a, b, protocols=OURS)
    assert said in str(caught.value)
    found = compare(a, b, protocols=OURS, allow_unlike=True)
    assert found.unlike == (said,)
    assert found.rows[0].difference.estimate == 0.5


def test_protocols_of_one_name_and_two_definitions_are_refused() -> None:
    a, b = scored("a", choices("+-+=")), scored("b", choices("++++"))
    b.results.protocols["speechscale"]["ties"] = 0.0
    (protocol,) = shared_protocols(a, b)
    assert protocol == replace(PROTOCOLS["speechscale"], source=protocol.source)
    with pytest.raises(DataError, match=r"protocol speechscale: ties is 0\.0 in b, not 0\.5"):
        compare(a, b, protocols=[protocol])


def test_items_only_one_has_are_counted_and_refused() -> None:
    a, b = scored("a", choices("+-+-")), without(scored("b", choices("++++")), "i0", "i3")
    with pytest.raises(DataError, match="sblimp dev ss: 2 of 4 items only in a"):
        compare(a, b, protocols=OURS)
    (row,) = compare(a, b, protocols=OURS, allow_unlike=True).rows
    assert (row.difference.n_items, row.difference.estimate) == (2, 0.5)


def test_whole_sets_of_one_side_are_noted_and_not_refused() -> None:
    a, b = scored("a", choices("+-+-")), scored("b", choices("++++") + choices("++", set="test"))
    found = compare(a, b, protocols=OURS)
    assert len(found.rows) == 1
    assert "only in b, not compared: sblimp test ss (eos-crossing)" in found.notes


def test_an_id_that_means_two_things_is_refused() -> None:
    a, b = choices("+-+-"), choices("++++")
    b[2] = replace(b[2], pair="another")
    with pytest.raises(DataError, match=r"1 items of another pair, phenomenon or tag \(i2\)"):
        compare(scored("a", a), scored("b", b), protocols=OURS)
    with pytest.raises(DataError, match=r"i0 .* twice"):
        compare(scored("a", [*a, a[0]]), scored("b", a), protocols=OURS)


def test_what_is_compared_may_differ_and_is_mentioned() -> None:
    a = scored("a", choices("+-"))
    b = scored("b", choices("+-"), speech_tokenizer="u", vocabulary="w", versions={"speechscale": "0.2.0"})
    notes = " ".join(compare(a, b, protocols=OURS).notes)
    assert "speech tokenizers differ" in notes
    assert "speechscale 0.1.0 against 0.2.0" in notes
    same = compare(a, scored("a2", choices("+-"), model={"sha256": "a"}), protocols=OURS)
    assert same.notes == ("both are the same model, by checksum",)


def test_nothing_in_common() -> None:
    a, b = scored("a", choices("+-")), scored("b", choices("+-", set="test"))
    with pytest.raises(DataError, match="no scored item in common"):
        compare(a, b, protocols=OURS)
    c = scored("c", choices("+-", protocol=PROTOCOLS["sims"]), ("sims",))
    with pytest.raises(DataError, match="share no protocol"):
        shared_protocols(a, c)


def test_a_protocol_of_neither_file_is_read_from_its_text() -> None:
    a, b = scored("a", choices("+-")), scored("b", choices("+-"))
    (protocol,) = shared_protocols(a, b, ["speechscale:normalization=sum"])
    assert protocol.normalization == "sum"
    assert compare(a, b, protocols=[protocol]).protocols["speechscale:normalization=sum"]["normalization"] == "sum"
    with pytest.raises(DataError, match="divides by words"):
        compare(a, b, protocols=shared_protocols(a, b, ["speechscale:normalization=per_word"]))


def test_same_seed_same_bytes() -> None:
    a, b = scored("a", choices("+--+=" * 9, per_pair=3)), scored("b", choices("++-=+" * 9, per_pair=3))
    first, again, other = (
        json.dumps(compare(a, b, protocols=OURS, seed=seed).record(), sort_keys=True) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert "NaN" not in first


def test_beside_a_printed_value() -> None:
    assert beside_value(0.62, 0.60, 0.64, 0.613) == "+0.7 [-1.3, 2.7] points (interval of our side alone)"
    assert beside_value(0.5, None, None, 0.613) == "-11.3 points (no interval)"
