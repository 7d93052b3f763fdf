"""Would catch a unit guessed, a row lost without a word, or N and C counted under two conventions at once."""

from __future__ import annotations

import gzip
import json
import sqlite3
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.tables.quantities import heading_unit, read_quantity, read_unit
from speechscale.scaling.tables.reading import read_runs, write_skips
from speechscale.scaling.tables.run_table import RunTable

ROWS = "N,D,loss,arm\n1e6,1e8,3.5,a\n2e6,2e8,3.25,b\n4e6,4e8,3.125,a\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def complete(table: RunTable) -> bool:
    return len(table) + len(table.skipped) == table.rows_read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20.7M", 2.07e7),
        ("1.5B", 1.5e9),
        ("1e9", 1e9),
        ("20,710,912", 20_710_912),
        ("20_710_912", 20_710_912),
        ("3e18", 3e18),
        ("2.1e18 FLOPs", 2.1e18),
        ("300B tokens", 3e11),
        ("1.5 billion", 1.5e9),
        ("2.1x10^18", 2.1e18),
        ("2 EFLOPs", 2e18),
        ("1 PF-day", 8.64e19),
    ],
)
def test_numbers_as_people_write_them(text: str, value: float) -> None:
    assert read_quantity(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["1.234,5", "1,5", "1.234.567", "1,234M", "12,34,567", "abc", "5 apples", "", "1__0"])
def test_two_readings_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="one reading"):
        read_quantity(text)


@given(st.floats(1e-3, 1e3), st.sampled_from([("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12), ("", 1.0)]))
def test_any_number_with_any_unit(number: float, unit: tuple[str, float]) -> None:
    assert read_quantity(f"{number!r}{unit[0]}") == pytest.approx(number * unit[1], rel=1e-12)
    assert read_quantity(f"{number!r} {unit[0]} tokens") == pytest.approx(number * unit[1], rel=1e-12)


@given(st.integers(1, 10**15))
def test_thousands_groups_do_not_change_a_number(number: int) -> None:
    assert read_quantity(f"{number:,}") == number
    assert read_quantity(f"{number:_}") == number


@pytest.mark.parametrize(
    ("heading", "name", "unit"),
    [
        ("N (M)", "N", 1e6),
        ("params_M", "params", 1e6),
        ("tokens (B)", "tokens", 1e9),
        ("FLOPs (1e18)", "FLOPs", 1e18),
        ("tokens_in_billions", "tokens", 1e9),
        ("C [EFLOPs]", "C", 1e18),
        ("loss (nats)", "loss (nats)", None),
        ("params_total", "params_total", None),
        ("epochs_of_10.89B", "epochs_of_10.89B", None),
    ],
)
def test_units_of_headings(heading: str, name: str, unit: float | None) -> None:
    found, text = heading_unit(heading)
    assert found == name
    assert (None if text is None else read_unit(text)) == unit


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "json"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, kind: str) -> None:
    path = tmp_path / f"table.{kind}"
    frame = pd.DataFrame({"N": [1e6, 2e6], "D": [1e8, 2e8], "loss": [3.5, 3.25], "arm": ["a", "b"]})
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(frame.to_dict("records")))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        text = frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",")
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    table = read_runs(path)
    assert table.params == pytest.approx([1e6, 2e6])
    assert table.tokens == pytest.approx([1e8, 2e8])
    assert table.loss == pytest.approx([3.5, 3.25])
    assert table.groups == ("a", "b")
    assert table.flops == pytest.approx(6 * table.params * table.tokens)


def test_units_are_read_and_echoed(tmp_path) -> None:
    table = read_runs(write(tmp_path / "t.csv", "N (M),tokens (B),loss\n20.7,1.5,3\n41,3,2.9\n"))
    assert table.params == pytest.approx([2.07e7, 4.1e7])
    assert table.tokens == pytest.approx([1.5e9, 3e9])
    assert "column 'N (M)': 20.7 read as 2.07e+07 parameters" in table.echoes
    cells = read_runs(write(tmp_path / "u.csv", "params,tokens,loss\n20.7M,300B tokens,3\n41M,1T,2.9\n"))
    assert cells.tokens == pytest.approx([3e11, 1e12])


def test_numbers_without_a_unit_are_refused_with_the_way_out(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "N,D,loss\n20,1e9,3\n155,2e9,2.9\n")
    with pytest.raises(DataError, match="--unit N=M"):
        read_runs(path)
    assert read_runs(path, units={"N": "M"}).params == pytest.approx([2e7, 1.55e8])
    with pytest.raises(DataError, match="no numeric column"):
        read_runs(path, units={"N": "M", "DD": "B"})
    both = write(tmp_path / "u.csv", "N (M),D,loss\n20M,1e9,3\n")
    with pytest.raises(DataError, match="name a unit"):
        read_runs(both)


def test_bad_rows_are_skipped_with_row_and_reason(tmp_path) -> None:
    bad = "1e6,1e8,nan\n1e6,1e8,inf\n1e6,1e8,-1\n1e6,1e8,0\n1e6,1e8,\n,1e8,3\n-5,1e8,3\n1e6,1e8,3\n"
    table = read_runs(write(tmp_path / "t.csv", "N,D,loss\n" + bad))
    assert len(table) == 1
    assert complete(table)
    assert [skip.row for skip in table.skipped] == [1, 2, 3, 4, 5, 6, 7]
    assert "nan" in table.skipped[0].reason
    assert "empty" in table.skipped[4].reason
    write_skips(tmp_path / "skips.jsonl", table)
    lines = [json.loads(line) for line in (tmp_path / "skips.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (ROWS, {"loss": "los"}, "no column 'los'; did you mean 'loss'"),
        (ROWS, {"columns": {"epoch": "arm"}}, "unknown role; did you mean 'epochs'"),
        ("N,D,loss\n1e6,x,3\n", {}, r"row 1, column 'D': 'x' is not a number"),
        ("N,loss\n1e6,3\n", {}, "two of N, D and C are needed"),
        ("N,D,loss\n", {}, "no rows"),
        ("N,D,loss,val_loss\n1e6,1e8,3,3\n", {}, "could both be loss"),
        ("N,D,C,loss\n1e6,1e8,6e17,3\n", {"n": "N", "d": "D", "c": "C"}, "1e\\+03 times 6 N D"),
        ("N,D,loss\n1e6,1e8,nan\n", {}, "none of 1 rows can be used"),
        ("N,D,acc\n1e6,1e8,123\n", {"metrics": ["acc"]}, "not between 0 and 100"),
        ("N,N,D\n1e6,1e6,1e8\n", {}, "two columns are called 'N'"),
        ("N,D\n1e6,1e8,3\n", {}, "line 2"),
        (ROWS, {"flops": "6nd_head"}, "the table has none"),
        (ROWS, {"drop_highest": 3}, "leaves none"),
    ],
)
def test_refusals_say_where_and_what(tmp_path, text: str, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_runs(write(tmp_path / "t.csv", text), **options)


def test_other_files_are_refused(tmp_path) -> None:
    for name, message in (("t.xlsx", "unknown kind"), ("no.csv", "no such file"), ("no.db", "no such file")):
        with pytest.raises(DataError, match=message):
            read_runs(tmp_path / name)
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_runs(write(tmp_path / "t.jsonl", "{"))
    with pytest.raises(DataError, match="not a trackio database"):
        read_runs(write(tmp_path / "t.db", "no database"))


def test_epochs_outlier_rule_keeps_240_of_245(shared) -> None:
    path = shared / "scaling_data/epoch_chinchilla/svg_extracted_data.csv"
    table = read_runs(path, drop_highest=5)
    losses = pd.read_csv(path)["loss"].to_numpy()
    assert (len(table), len(table.skipped), table.rows_read) == (240, 5, 245)
    assert sorted(table.loss) == sorted(losses[losses < np.sort(losses)[-5]])


def test_conventions_of_the_speech_runs(shared) -> None:
    path = shared / "scaling_data/cuervo_slm/slm_endpoints_31.csv"
    frame = pd.read_csv(path)
    for name, column in (
        ("6nd_total", "flops_6ND"),
        ("6nd_non_embedding", "flops_6N_nonemb_D"),
        ("6nd_attention", "flops_6ND_plus_attention"),
    ):
        table = read_runs(path, flops=name, metrics=["tstorycloze"])
        assert table.flops == pytest.approx(frame[column].to_numpy(float))
        assert table.params == pytest.approx((frame[column] / 6 / frame["tokens_seen"]).to_numpy(float))
        assert table.flops_name == name
        assert table.metrics["tstorycloze"] == pytest.approx(frame["tstorycloze"] / 100)
    with pytest.raises(DataError, match="the table has 6nd_total, 6nd_non_embedding, 6nd_attention"):
        read_runs(path, flops="6nd_head")


def test_three_columns_are_held_together(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "N,D,C,loss\n1e6,1e8,9e14,3\n2e6,1e8,18e14,2.9\n")
    table = read_runs(path, n="N", d="D", c="C")
    assert table.params == pytest.approx([1.5e6, 3e6])
    assert any("C / (6 N D) is 1.500" in line for line in table.echoes)
    assert read_runs(path, n="N", d="D").params == pytest.approx([1e6, 2e6])


def test_a_studys_own_runs_need_no_options(tmp_path) -> None:
    text = (
        "part,arm,params_total,params_non_embedding,tokens_seen,budget_flops,loss_speech_final,loss_speech_se,"
        "acc_words_ss,acc_words_ss_n,acc_words_ss_se,units,speech_epochs\n"
        "main,textless,20000,15000,100000,1.2e10,2.5,.01,.6,100,.05,mfcc,2.5\n"
        "main,text,20000,15000,100000,1.2e10,,,.5,100,.05,mfcc,\n"
    )
    table = read_runs(write(tmp_path / "runs.csv", text))
    assert table.groups == ("textless",)
    assert list(table.metrics) == ["acc_words_ss"]
    assert table.numbers("epochs") == pytest.approx([2.5])
    assert table.words("tokenizer") == ("mfcc",)
    assert [skip.row for skip in table.skipped] == [2]
    body = read_runs(tmp_path / "runs.csv", flops="6nd_non_embedding")
    assert body.params == pytest.approx([15000])


def test_wandb_runs_that_failed_are_left_out(tmp_path) -> None:
    text = "Name,State,N,D,loss\na,finished,1e6,1e8,3\nb,crashed,1e6,2e8,9\nc,finished,2e6,2e8,2.9\n"
    table = read_runs(write(tmp_path / "export.csv", text))
    assert table.loss == pytest.approx([3, 2.9])
    assert [(skip.row, "crashed" in skip.reason) for skip in table.skipped] == [(2, True)]
    assert complete(table)


def test_wandb_histories_end_in_their_last_row(tmp_path) -> None:
    write(tmp_path / "a.csv", "_step,N,D,loss\n1,1e6,1e7,4\n2,1e6,1e8,\n")
    write(tmp_path / "b.jsonl", '{"_step": 2, "D": 2e8, "loss": 2.5}\n{"_step": 1, "D": 2e7, "loss": 3}\n')
    write(tmp_path / "b.json", '{"N": 2e6}')
    write(tmp_path / "c.jsonl", '{"_step": 1, "N": 1e6, "D": 1e8, "loss": 3}\n{"_step": 2, "D": 2e8, "loss": NaN}\n')
    table = read_runs(tmp_path)
    assert table.words("run") == ("a", "b")
    assert table.loss == pytest.approx([4, 2.5])
    assert table.tokens == pytest.approx([1e8, 2e8])
    assert "nan" in table.skipped[0].reason  # the diverged run does not get its older loss back
    assert complete(table)
    assert len(read_runs(tmp_path, checkpoints=True)) == 5


@pytest.mark.parametrize("as_bytes", [False, True])
def test_trackio_databases(tmp_path, as_bytes: bool) -> None:
    path = tmp_path / "project.db"
    pack = (lambda x: json.dumps(x).encode()) if as_bytes else json.dumps
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name TEXT, config TEXT, created_at TEXT)")
    for run, size in (("a", 1e6), ("b", 2e6)):
        database.execute(
            "INSERT INTO configs (run_name, config) VALUES (?, ?)", (run, pack({"model": {"params": size}}))
        )
        for step in (1, 2):
            row = (run, step, pack({"tokens": step * 1e8, "check/loss": 4 - step / 2}))
            database.execute("INSERT INTO metrics (run_name, step, metrics) VALUES (?, ?, ?)", row)
    database.commit()
    database.close()
    table = read_runs(path, n="model.params", loss="check/loss")
    assert table.params == pytest.approx([1e6, 2e6])
    assert table.tokens == pytest.approx([2e8, 2e8])
    assert table.loss == pytest.approx([3, 3])


def test_a_hundred_thousand_rows_are_read_fast(tmp_path) -> None:
    """The bound is several times what was measured (about 1 s), for busy machines."""
    count = 100_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"N": rng.uniform(1e6, 1e9, count), "D": rng.uniform(1e8, 1e10, count), "loss": 3.0})
    frame.to_csv(tmp_path / "t.csv", index=False)
    start = time.process_time()
    table = read_runs(tmp_path / "t.csv")
    assert time.process_time() - start < 6
    assert table.params == pytest.approx(frame["N"].to_numpy(), rel=1e-12)


def test_a_column_in_millions_reaching_into_billions_is_not_read_as_it_stands(tmp_path: Path) -> None:
    """4.3 to 2,640 are sizes in millions; read as parameters they would fit without a word."""
    path = tmp_path / "runs.csv"
    path.write_text(
        "params,tokens,loss\n"
        + "".join(f"{n},{1e9 * (i + 1)},{3 - 0.1 * i}\n" for i, n in enumerate((4.3, 90, 700, 2640)))
    )
    with pytest.raises(DataError, match="--unit N=M"):
        read_runs(path)
    assert read_runs(path, units={"N": "M"}).params.max() == pytest.approx(2.64e9)


@pytest.mark.parametrize("heading", ["loss (2)", "loss_B", "tSC, 4"])
def test_a_number_or_letter_in_the_name_of_a_score_is_no_unit(tmp_path, heading: str) -> None:
    rows = 'params,tokens,"' + heading + '"\n1e6,1e8,0.5\n2e6,2e8,0.25\n'
    path = write(tmp_path / "runs.csv", rows)
    table = read_runs(path, loss=heading, metrics=[heading])
    assert list(table.loss) == [0.5, 0.25]
    assert list(table.metrics[heading]) == [0.5, 0.25]


def test_negative_numbers_of_further_columns_are_refused_with_their_row(tmp_path) -> None:
    path = write(tmp_path / "runs.csv", "params,tokens,loss,text_lm_tokens\n1e6,1e8,3,1e9\n2e6,2e8,3,-1e9\n")
    with pytest.raises(DataError, match=r"row 2, column 'text_lm_tokens'.*0 or more"):
        read_runs(path)


def test_a_studys_text_lm_is_counted_as_its_runs_are(tmp_path) -> None:
    """Exact compute is 1.5 x 6 N D here: as much as the run costs stays as much as the run costs."""
    rows = "arm,params_total,tokens_seen,loss_speech_final,budget_flops,flops_exact,flops_text_lm_exact\n"
    rows += "a,1e6,1e8,3,9e14,9e14,9e14\nb,1e6,1e8,3,9e14,9e14,0\n"
    path = write(tmp_path / "runs.csv", rows)
    table = read_runs(path)
    assert table.extras["text_lm_flops"] == pytest.approx([6e14, 0])
    exact = read_runs(path, flops="exact")
    assert exact.extras["text_lm_flops"] == pytest.approx([9e14, 0])


def test_a_compute_beyond_all_numbers_is_a_row_left_out(tmp_path) -> None:
    path = write(tmp_path / "runs.csv", "params,tokens,loss\n1e6,1e8,3\n1e200,1e200,3\n")
    table = read_runs(path)
    assert complete(table)
    assert [skip.row for skip in table.skipped] == [2]
    assert np.isfinite(table.flops).all()
