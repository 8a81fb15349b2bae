"""All results of a run to one self-contained HTML page: nothing is loaded, nothing runs, text of data and model is escaped."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from xledit.benchmark.results import BenchmarkAudit
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry, VectorGeometry
from xledit.manifest import ModelManifest
from xledit.records import Audit
from xledit.report.common.drawing import inline
from xledit.report.common.numbers import NAN
from xledit.report.common.page import template
from xledit.report.editing import figures, sentences, tables
from xledit.report.editing import runs as run_tables
from xledit.report.editing.glossary import measures, others

TEMPLATE = "page.html.j2"
NUM_EXAMPLES = 6


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is rendered from. ``settings`` are shown as they are; ``updates`` by method, ``tokens``: counts by language."""

    languages: tuple[str, ...]
    methods: tuple[str, ...]
    seed: int
    settings: Mapping[str, object]
    model: ModelManifest
    audit: Audit
    benchmark: BenchmarkAudit
    tokens: Mapping[str, Mapping[str, int]]
    cells: Sequence[CellSummary]
    vectors: Sequence[VectorGeometry]
    updates: Mapping[str, Sequence[UpdateGeometry]]
    others: Sequence[run_tables.RunCells] = ()


def render(run: Run) -> str:
    """Return the page as HTML text."""
    return template(Path(__file__).parent, TEMPLATE).render(
        run=run,
        name=sentences.name,
        nan=NAN,
        by_method={method: [cell for cell in run.cells if cell.method == method] for method in run.methods},
        shown_in=shown_in,
        objects={what: text for what, text in sentences.WHAT.items() if any(row.what == what for row in run.vectors)},
        figures=_figures(run),
        sentences=sentences,
        runs=run_tables,
        tables=tables,
        num_examples=NUM_EXAMPLES,
        measures=measures(),
        others=others(),
    )


def _figures(run: Run) -> dict[str, Markup]:
    """Return the page's figures, SVG by name. They are not escaped: their words come from our settings, never from a model."""
    svgs = {}
    for method in run.methods:
        cells = [cell for cell in run.cells if cell.method == method]
        what = " and ".join(shown_in("figure").values())
        label = f"{method}: {what} by edit and probe language, with intervals and floors; the table below has the numbers"
        svgs[f"transfer-{method}"] = inline(figures.transfer(cells), f"transfer-{method}", label)
    for method, updates in run.updates.items():
        if not updates:
            continue
        label = f"{method}: cosine of pairs of updates by layer; the table below has the numbers"
        svgs[f"updates-{method}"] = inline(figures.update_cosines(updates), f"updates-{method}", label)
    for what in dict.fromkeys(row.what for row in run.vectors):
        label = f"{what}: centred cosine by layer beside the nulls; the table below has the numbers"
        svgs[f"cosines-{what}"] = inline(figures.cosines(run.vectors, what), f"cosines-{what}", label)
    for other in run.others:
        if other.sequences:
            name = f"sequence-{other.record.name}"
            label = f"{other.record.what}: recall, perplexity and weight norm by number of facts stored; results/ has the numbers"
            svgs[name] = inline(figures.sequence(other.sequences), name, label)
    label = "facts by domain and split; the README of the benchmark and reports/audit.json have the numbers"
    svgs["domains"] = inline(figures.domains(run.benchmark.benchmark.domains), "domains", label)
    return {name: Markup(svg) for name, svg in svgs.items()}
