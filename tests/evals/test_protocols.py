"""Would catch: a named protocol that is not what its paper did, a switch that changes nothing, a name that lies."""

from __future__ import annotations

import pytest

from speechscale.errors import DataError
from speechscale.evals.choices import Choice
from speechscale.evals.protocols import PROTOCOLS, Layout, Likelihood, get_protocol, layouts_of

# Prompt of 4 tokens behind <eos>; ending of 2 (good) or 3 (bad) tokens.
GOOD = Likelihood(
    ending_tokens=2,
    whole_tokens=6,
    ending_words=1,
    whole_words=3,
    ending_s=0.5,
    whole_s=2.0,
    ending_full=-6.0,
    whole_full=-12.0,
    ending_own=-4.0,
    whole_own=-9.0,
    end_full=-9.0,
    end_own=-8.0,
)
BAD = Likelihood(
    ending_tokens=3,
    whole_tokens=7,
    ending_words=2,
    whole_words=4,
    ending_s=1.0,
    whole_s=2.5,
    ending_full=-7.5,
    whole_full=-14.7,
    ending_own=-6.6,
    whole_own=-9.1,
    end_full=-1.0,
    end_own=-0.5,
)


@pytest.mark.parametrize(
    ("protocol", "good", "bad"),
    [
        ("speechscale", -6 / 2, -7.5 / 3),
        ("speechscale:normalization=sum", -6.0, -7.5),
        ("speechscale:normalization=per_word", -6.0, -3.75),
        ("speechscale:normalization=per_second", -12.0, -7.5),
        ("speechscale:softmax=own", -2.0, -2.2),
        ("speechscale:end=true", -15 / 3, -8.5 / 4),
        ("speechscale:softmax=own,end=true,normalization=sum", -12.0, -7.1),
        ("sims", -12 / 6, -14.7 / 7),
        ("sims-cross", -2.0, -2.1),
        ("slam", -21 / 7, -15.7 / 8),
        ("cuervo", -2.0, -2.1),
        ("twist", -2.0, -2.1),
        ("twist:normalization=sum", -12.0, -14.7),
    ],
)
def test_values_by_hand(protocol: str, good: float, bad: float) -> None:
    found = get_protocol(protocol)
    assert GOOD.value(found) == pytest.approx(good)
    assert BAD.value(found) == pytest.approx(bad)
    choice = Choice(id="a", set="s", direction="ss", layout=found.layout, pair="a", good=GOOD, bad=BAD)
    assert choice.correct(found) == float(good > bad)


def test_what_the_papers_did() -> None:
    # slamkit: no start token for interleaved models, <S> units <S> for unit models; Cuervo: <eos> in front, macro.
    assert PROTOCOLS["sims"].layout == Layout("none", "crossing")
    assert PROTOCOLS["sims-cross"].layout == Layout("none", "always")
    assert (PROTOCOLS["slam"].layout.start, PROTOCOLS["slam"].end) == ("eos", True)
    assert (PROTOCOLS["cuervo"].aggregate, PROTOCOLS["cuervo"].ties) == ("macro", 0.5)
    assert PROTOCOLS["cuervo-cloze"].ties == 0.0
    assert {p.normalization for p in PROTOCOLS.values()} == {"mean"}
    assert {name for name, p in PROTOCOLS.items() if p.span == "ending"} == {"speechscale"}


def test_layouts_are_the_passes() -> None:
    same = [PROTOCOLS[name] for name in ("speechscale", "cuervo", "cuervo-cloze", "twist", "slam")]
    assert len(layouts_of(same)) == 1
    assert len(layouts_of(PROTOCOLS.values())) == 3


def test_a_changed_protocol_says_so() -> None:
    changed = get_protocol("cuervo:normalization=sum,start=none")
    assert changed.name == "cuervo:normalization=sum,start=none"
    assert changed.layout == Layout("none", "crossing")
    assert changed.stamp() != PROTOCOLS["cuervo"].stamp()
    assert get_protocol("twist").stamp() == PROTOCOLS["twist"].stamp()
    assert "name" not in changed.stamp()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sim", "did you mean 'sims'"),
        ("sims:normalization=median", "allowed: mean, sum, per_word, per_second"),
        ("sims:norm=sum", "'norm=sum' is not FIELD=VALUE"),
        ("sims:end", "'end' is not FIELD=VALUE"),
        ("sims:ties=2", "allowed: 0, 0.5, 1"),
    ],
)
def test_bad_protocols_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_protocol(text)


def test_a_protocol_that_cannot_divide_is_refused() -> None:
    silent = Likelihood(**{name: getattr(GOOD, name) for name in GOOD.__slots__} | {"ending_s": 0.0, "ending_words": 0})
    choice = Choice(id="a", set="s", direction="tt", layout=Layout(), pair="a", good=silent, bad=BAD)
    for lack in ("seconds", "words"):
        with pytest.raises(DataError, match=rf"a \(tt\): .* divides by {lack}"):
            choice.margin(get_protocol(f"speechscale:normalization=per_{lack.removesuffix('s')}"))
