"""The model card: Markdown with the hub's metadata, from facts.

Enters: `ModelFacts`. Leaves: the text of README.md. The one decision worth knowing: what the records do not hold is
called "not recorded" where a reader would look for it, and left out elsewhere. Needs no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from speechscale import __version__
from speechscale.report.card_check import require_valid
from speechscale.report.card_facts import NOT_RECORDED, DataFacts, MetricFacts, ModelFacts
from speechscale.report.card_limits import DIRECTIONS, limits
from speechscale.report.numbers import short_count, short_flops

LIBRARY = "transformers"
CITATIONS = (
    ("speechscale", "@software{speechscale,\n"
    "  title = {speechscale: scaling studies of interleaved speech-text language models},\n"
    f"  version = {{{__version__}}}\n}}"),
    ("Interleaved scaling (SIMS)", "@inproceedings{maimon2025sims,\n"
    "  title = {Scaling Analysis of Interleaved Speech-Text Language Models},\n"
    "  author = {Maimon, Gallil and Hassid, Michael and Roth, Amit and Adi, Yossi},\n"
    "  booktitle = {Conference on Language Modeling},\n  year = {2025},\n  note = {arXiv:2504.02398}\n}"),
    ("Scaling of speech language models", "@inproceedings{cuervo2024scaling,\n"
    "  title = {Scaling Properties of Speech Language Models},\n"
    "  author = {Cuervo, Santiago and Marxer, Ricard},\n"
    "  booktitle = {Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing},\n"
    "  pages = {351--361},\n  year = {2024},\n  doi = {10.18653/v1/2024.emnlp-main.21}\n}"),
)  # fmt: skip
CONVENTIONS = {
    "flops_exact": "exact: weights that multiply, the output head, causal attention",
    "flops_6nd_total": "6 N D, N with embeddings",
    "flops_6nd_non_embedding": "6 N D, N without embeddings",
    "flops_6nd_head": "6 N D, N of the body and the output head",
    "flops_6nd_attention": "6 N D, N with embeddings, and full attention",
}
"""Names of runs.csv and what they count (docs/model.md)."""
STARTS = {
    "scratch": "random weights",
    "warm": "a TextLM; rows for units and markers were added, its text rows and its body kept",
    "textless-warm": "the body of a TextLM, with new rows for units (as TWIST)",
    "slm": "a speech language model, trained on",
}


def model_card(facts: ModelFacts) -> str:
    """Write the card.

    Raises:
        DataError: the metadata would be refused by the hub (a license it does not know, ...); the fields are named.
    """
    text = f"---\n{metadata(facts).to_yaml(line_break=chr(10))}\n---\n\n{_body(facts)}"
    require_valid(text, "model")
    return text


def metadata(facts: ModelFacts) -> ModelCardData:
    """What the hub reads."""
    values: dict[str, Any] = {
        "language": list(facts.languages) or None,
        "license": facts.terms.license or None,
        "license_name": facts.terms.name or None,
        "license_link": facts.terms.link or None,
        "library_name": LIBRARY,
        "pipeline_tag": "audio-to-audio" if facts.units.count else "text-generation",
        "tags": _tags(facts),
        "base_model": facts.start.hub_base,
        "datasets": sorted({source.hub_name for source in facts.data if source.hub_name}) or None,
        "metrics": ["accuracy"] if facts.metrics else None,
    }
    results = eval_results(facts)
    if results:
        values |= {"model_name": facts.name, "eval_results": results}
    return ModelCardData(**values)


def eval_results(facts: ModelFacts) -> list[EvalResult]:
    """Accuracies for the hub's table of results, each with its interval and protocol in its name."""
    return [
        EvalResult(
            task_type="multiple-choice",
            task_name=f"forced choice, {DIRECTIONS.get(metric.direction, metric.direction)}",
            dataset_type=slug(metric.benchmark),
            dataset_name=metric.title or metric.benchmark,
            dataset_config=", ".join(filter(None, (metric.set, metric.tag, metric.direction, metric.protocol))),
            dataset_revision=metric.version or None,
            metric_type="accuracy",
            metric_value=round(metric.estimate, 4),
            metric_name=f"accuracy{_interval(metric)}",
            metric_args={"protocol": metric.protocol, "items": metric.n_items, "pairs": metric.n_pairs},
        )
        for metric in facts.metrics
    ]


def slug(name: str) -> str:
    """A name that the hub takes. Example: "my set (dev)" -> "my-set-dev" """
    made = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
    return re.sub(r"[-.]{2,}", "-", made)[:90].strip("-.") or "unnamed"


def cell(value: object) -> str:
    """Text that stays inside its table cell and is no markup, whatever a corpus called its speakers.

    Example: "![x](y)\\n|" -> "![x]\\(y) \\|"
    """
    text = re.sub(r"\s+", " ", str(value)).strip()
    text = re.sub(r"([\\`*|]|(?<=\])\()", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def quoted(value: str) -> str:
    """A string of Python. Example: 'a"b' -> '"a\\\\"b"'"""
    return json.dumps(value, ensure_ascii=False)


def code_span(value: object) -> str:
    """Text in a code span of one table cell."""
    return re.sub(r"\s+", " ", str(value)).strip().replace("`", "'").replace("|", "\\|")


def environment() -> jinja2.Environment:
    """What cards are laid out with. Values go through `cell` in the templates."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"cell": cell, "count": short_count, "flops": short_flops, "duration": duration, "hours": hours}
    made.filters |= {"code": code_span, "quoted": quoted, "link": quote}
    return made


def duration(seconds: float) -> str:
    """Example: 3.19 -> "3.2 s", 700 -> "11.7 minutes", 9000 -> "2.5 h" """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def hours(value: float) -> str:
    """Hours with about three digits. Example: 0.26162 -> "0.262", 12 -> "12", 4567.8 -> "4,568" """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    made = f"{value:,.{digits}f}"
    return made.rstrip("0").rstrip(".") if "." in made else made


def _template(name: str) -> str:
    return (resources.files("speechscale.report") / "assets" / name).read_text(encoding="utf-8")


def _body(facts: ModelFacts) -> str:
    return (
        environment()
        .get_template("model_card.md.j2")
        .render(
            facts=facts,
            version=__version__,
            missing=NOT_RECORDED,
            place=facts.repo or "FOLDER_OR_NAME",
            start=STARTS.get(facts.start.kind, facts.start.kind),
            conventions=CONVENTIONS,
            directions=DIRECTIONS,
            metrics=_ordered(facts.metrics),
            interval=_interval,
            licences=_licences,
            limits=limits(facts),
            citations=CITATIONS,
            groups=_groups(facts),
        )
    )


def _ordered(metrics: Sequence[MetricFacts]) -> list[MetricFacts]:
    return sorted(metrics, key=lambda m: (m.benchmark, m.protocol, m.set, m.direction, m.tag))


def _interval(metric: MetricFacts) -> str:
    return "" if metric.low is None or metric.high is None else f" [{metric.low:.3f}, {metric.high:.3f}]"


def _licences(source: DataFacts) -> str:
    if not source.licences:
        return source.terms or NOT_RECORDED
    return "; ".join(f"{name or NOT_RECORDED}: {hours(amount)} h" for name, amount in source.licences)


def _groups(facts: ModelFacts) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for sample in facts.samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups


def _tags(facts: ModelFacts) -> list[str]:
    tags = ["speechscale", facts.family]
    if facts.units.count:
        tags += ["speech", "speech-language-model"]
        tags.append("interleaved-speech-text" if facts.ids.text else "textless")
    return [tag for tag in dict.fromkeys(tags) if tag]
