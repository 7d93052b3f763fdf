"""What token stores hold and what their mixture delivers, as a page with pictures.

Enters: the records of `tokens.overview` as plain data. Leaves: tables as rows of text, and one HTML file that needs no
network. The one decision worth knowing: page and terminal show the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from speechscale.files import complete_file
from speechscale.report.figures import PALETTE
from speechscale.report.html_parts import figure_div, plotly_script, table
from speechscale.report.numbers import short_count

Table = tuple[str, list[list[str]]]
"""Title, and rows of which the first is the head."""


def stats_tables(report: Mapping[str, Any]) -> list[Table]:
    """All tables, in the order of reading."""
    tables = [_stores(report["stores"]), _streams(report["stores"])]
    interleaved = [store for store in report["stores"] if store["interleave"]]
    if interleaved:
        tables += [_interleaving(interleaved), _by_length(interleaved)]
    if report["mixture"]:
        tables += [_mixture(report["mixture"]), _prefixes(report["mixture"])]
    return tables


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned text, the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def stats_notes(report: Mapping[str, Any]) -> list[str]:
    """What is only a sample, and what to know of the mixture."""
    notes = []
    for store in report["stores"]:
        for stream, found in store["streams"].items():
            if found["looked_at"] < found["documents"]:
                notes.append(
                    f"{store['name']}, {stream}: figures are of the first {found['looked_at']:,} of "
                    f"{found['documents']:,} documents; tokens of all are estimated from them."
                )
    return notes


def _stores(stores: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["store", "utterances", "hours", "units", "words", "without time", "texts", "text tokens", "MB on disk"]]
    for store in stores:
        counts = store["counts"]
        names = ("speech_documents", "", "units", "words", "words_without_time", "text_documents", "text_tokens")
        cells = [f"{counts.get(name, 0):,}" if name else f"{store['hours']:.2f}" for name in names]
        rows.append([store["name"], *cells, f"{store['bytes'] / 1e6:.3g}"])
    return "Stores", rows


def _streams(stores: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["stream", "documents", "tokens", "per document", "speech", "text", "marker"]]
    for store in stores:
        for stream, found in store["streams"].items():
            total = max(sum(found["kinds"].values()), 1)
            parts = [f"{found['kinds'][kind] / total:.1%}" for kind in ("speech", "text", "marker")]
            about = "" if found["looked_at"] == found["documents"] else "about "
            mean = found["tokens"] / max(found["documents"], 1)
            name = f"{store['name']}/{stream}"
            rows.append([name, f"{found['documents']:,}", f"{about}{found['tokens']:,}", f"{mean:.1f}", *parts])
    return "Tokens by stream and modality", rows


def _interleaving(stores: Sequence[Mapping[str, Any]]) -> Table:
    def asked(found: Mapping[str, Any]) -> str:
        return "-" if found["share_asked"] is None else f"{found['share_asked']:.1%} {found['share_kind']}"

    def mean(found: Mapping[str, Any], name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:.2f}"

    records = [store["interleave"] for store in stores]
    rows = [
        ["interleaving", *(store["name"] for store in stores)],
        ["share of spoken words", *(_percent(found["speech_word_share"]) for found in records)],
        ["share asked", *map(asked, records)],
    ]
    for label, name in (
        ("words of a speech span, mean", "mean_speech_span_words"),
        ("words of a text span, mean", "mean_text_span_words"),
        ("speech spans per utterance, mean", "mean_speech_spans"),
    ):
        rows.append([label, *(mean(found, name) for found in records)])
    for label, name in (
        ("utterances", "utterances"),
        ("utterances below the share", "short_utterances"),
        ("words", "words"),
        ("words without time", "untimed_words"),
        ("demoted words (drawn as speech, no unit)", "demoted_words"),
        ("words of speech spans without units", "lost_words"),
        ("doubled units (in two spans)", "doubled_units"),
    ):
        rows.append([label, *(f"{found[name]:,}" for found in records)])
    return "Interleaving", rows


def _by_length(stores: Sequence[Mapping[str, Any]]) -> Table:
    rows = [["words of the utterance", *(entry["words"] for entry in stores[0]["interleave"]["by_length"])]]
    for store in stores:
        entries = store["interleave"]["by_length"]
        rows.append([f"{store['name']}, spoken words", *(_percent(entry["speech_word_share"]) for entry in entries)])
        rows.append([f"{store['name']}, utterances", *(f"{entry['utterances']:,}" for entry in entries)])
    return "Share of spoken words by length of the utterance", rows


def _mixture(mixture: Mapping[str, Any]) -> Table:
    rows = [["source", "asked", "delivered", "tokens", "unique tokens", "epochs", "documents", "split", "rows"]]
    for source in mixture["sources"]:
        numbers = ("tokens_seen", "tokens_unique")
        rows.append(
            [
                source["name"],
                f"{source['share']:.2%}",
                _percent(source["delivered"], 2),
                *(f"{source[name]:,}" for name in numbers),
                f"{source['epochs']:.3f}",
                *(f"{source[name]:,}" for name in ("documents", "split_documents", "rows")),
            ]
        )
    title = (
        f"Mixture: {mixture['batches']} batches of {mixture['batch_rows']} rows of {mixture['context']} tokens; "
        f"{mixture['fill']:.2%} of the places filled, {mixture['speech_hours_unique']:.2f} h of speech heard"
    )
    return title, rows


def _prefixes(mixture: Mapping[str, Any]) -> Table:
    """Shares after 1, 2, 5, 10, ... batches."""
    steps = [step for k in range(7) for step in (10**k, 2 * 10**k, 5 * 10**k) if step < mixture["batches"]]
    chosen = [*steps, mixture["batches"]]
    prefixes = mixture["prefixes"]
    rows = [["after batches", *map(str, chosen)], ["tokens"]]
    rows[1] += [short_count(prefixes["tokens"][step - 1]) for step in chosen]
    for name, shares in prefixes["shares"].items():
        rows.append([name, *(f"{shares[step - 1]:.2%}" for step in chosen)])
    rows.append(["largest difference", *(f"{prefixes['largest_difference'][step - 1]:.2%}" for step in chosen)])
    return "Delivered shares over prefixes", rows


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{share:.{digits}%}"


def share_figure(mixture: Mapping[str, Any]) -> go.Figure:
    """Delivered share of each source against tokens, what was asked as a dotted line."""
    figure = go.Figure()
    tokens = mixture["prefixes"]["tokens"]
    for index, source in enumerate(mixture["sources"]):
        color, shares = PALETTE[index % len(PALETTE)], mixture["prefixes"]["shares"][source["name"]]
        figure.add_trace(
            go.Scatter(
                x=tokens, y=shares, mode="lines+markers", marker={"size": 4, "color": color}, name=source["name"]
            )
        )
        figure.add_hline(y=source["share"], line={"color": color, "dash": "dot", "width": 1})
    figure.update_xaxes(title="tokens delivered")
    figure.update_yaxes(title="share of the tokens", rangemode="tozero", tickformat=".0%")
    return _styled(figure)


def length_figure(stores: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Realized share of spoken words by length of the utterance."""
    figure = go.Figure()
    for index, store in enumerate(stores):
        entries = store["interleave"]["by_length"]
        color = PALETTE[index % len(PALETTE)]
        figure.add_trace(
            go.Bar(
                x=[entry["words"] for entry in entries],
                y=[entry["speech_word_share"] for entry in entries],
                customdata=[entry["utterances"] for entry in entries],
                hovertemplate="%{x} words: %{y:.1%} (%{customdata} utterances)",
                name=store["name"],
                marker_color=color,
            )
        )
        if store["interleave"]["share_asked"] is not None:
            figure.add_hline(y=store["interleave"]["share_asked"], line={"color": color, "dash": "dot", "width": 1})
    figure.update_xaxes(title="words of the utterance", type="category")
    figure.update_yaxes(title="share of spoken words", range=[0, 1.02], tickformat=".0%")
    return _styled(figure)


def span_figure(stores: Sequence[Mapping[str, Any]]) -> go.Figure:
    """How long spans are."""
    figure = go.Figure()
    for index, store in enumerate(stores):
        for modality, dash in (("speech", "solid"), ("text", "dot")):
            counts = store["interleave"]["span_words"][modality]
            total = max(sum(counts), 1)
            figure.add_trace(
                go.Scatter(
                    x=list(range(1, len(counts))),
                    y=[count / total for count in counts[1:]],
                    mode="lines+markers",
                    marker={"size": 4},
                    line={"color": PALETTE[index % len(PALETTE)], "dash": dash},
                    name=f"{store['name']}, {modality}",
                )
            )
    figure.update_xaxes(title="words of a span (the last: as many or more)")
    figure.update_yaxes(title="share of the spans", rangemode="tozero", tickformat=".0%")
    return _styled(figure)


def fill_figure(mixture: Mapping[str, Any]) -> go.Figure:
    """How full rows are."""
    bins = mixture["fill_bins"]
    width = 1 / len(bins)
    figure = go.Figure(
        go.Bar(x=[(k + 0.5) * width for k in range(len(bins))], y=bins, width=width, marker_color=PALETTE[0])
    )
    figure.update_xaxes(title="filled places of a row", range=[0, 1.01], tickformat=".0%")
    figure.update_yaxes(title="rows")
    return _styled(figure)


def write_stats_page(path: Path, report: Mapping[str, Any], *, title: str) -> None:
    """Write the page."""
    interleaved = [store for store in report["stores"] if store["interleave"]]
    drawn: list[tuple[str, go.Figure]] = []
    if report["mixture"]:
        drawn.append(("Share of the tokens by source (dotted: asked)", share_figure(report["mixture"])))
    if interleaved:
        drawn.append(("Share of spoken words by length (dotted: asked)", length_figure(interleaved)))
        drawn.append(("Length of spans", span_figure(interleaved)))
    if report["mixture"]:
        drawn.append(("Fill of rows", fill_figure(report["mixture"])))
    css = (resources.files("speechscale.report") / "assets" / "tokens.css").read_text(encoding="utf-8")
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in report["facts"].items())
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in stats_notes(report))
    tables = "".join(f"<h2>{escape(name)}</h2>{table(rows)}" for name, rows in stats_tables(report))
    figures = "".join(f"<h2>{escape(name)}</h2>{figure_div(figure)}" for name, figure in drawn)
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{css}</style><script>{plotly_script()}</script></head><body><h1>{escape(title)}</h1><dl>{facts}</dl>{notes}"
        f"{tables}{figures}</body></html>\n"
    )
    with complete_file(Path(path)) as draft:
        draft.write_text(page, encoding="utf-8")


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=340,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"font": {"size": 11}},
        barmode="group",
    )
    return figure
