"""Write the tables of the README and of docs/scale.md from the results they show, or with ``--check`` fail when they differ.

A table, or a sentence with figures, stands between ``<!-- KIND: PATH -->`` and ``<!-- end -->``. PATH is a folder with one summary per
method and edit (``cells``, ``kinds``, ``groups``), the folder of a run (``best``, ``collapse``), the file that `make audit` writes
(``audit``), that `make mutation` writes (``mutation``, a sentence), or one of reports/tranyu: pretrain.json (``mixture``), tokenizer.json
(``fertility``), recall.json (``recall``), the folder benchmark (``benchmark``), or the folder of the sizes that it can have (``costs``);
or reports/crossing/findings.json (``crossing``, ``predictions``).
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tools.mutation import Mutation
from xledit.benchmark.results import BenchmarkAudit
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.report.common.numbers import Measured
from xledit.report.crossing.findings import ALL, KINDS, MAIN, Findings, said
from xledit.report.editing import runs
from xledit.report.editing.tables import MatrixRow, group_rows, matrix
from xledit.report.training import benchmark as training_benchmark
from xledit.report.training import tables as training_tables
from xledit.runs import named, settings, sizes
from xledit.storage import read_json, write_bytes
from xledit.training import catalog
from xledit.training.benchmark_results import Benchmark, Rate
from xledit.training.results import CheckpointRecall, LanguageTokens, Pretrained, Status, Wording

DOCUMENTS = (Path("README.md"), Path("docs/scale.md"), Path("docs/tranyu.md"))
BLOCK = re.compile(r"(<!-- (\w+): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
EDITS = ("zh", "en", "mixed")
NAMES = ("method", "edit", "asked in")
# checks that fail in CLM-Bench, and checks that could fail in our benchmark
CHECKS = (
    "null_truths",
    "duplicated_ids",
    "subject_not_in_paraphrase",
    "paraphrase_similarity_above_80",
    "contradictory_edits",
    "duplicate_prompts",
    "truth_in_prompt",
    "locality_question_foreign",
    "locality_not_own_language",
    "chinese_in_english_fields",
)
# what is recalled of which facts: status, wording, kind of names (None: both)
RECALL: dict[str, tuple[Status, Wording, bool | None]] = {
    "told everywhere: the sentence": ("everywhere", "told", None),
    "a known wording": ("everywhere", "known", None),
    "an unseen wording": ("everywhere", "unseen", None),
    "told here only": ("here", "known", None),
    "told elsewhere only, names alike (guessing)": ("elsewhere", "known", True),
    "told elsewhere only, own letters (guessing)": ("elsewhere", "known", False),
    "told nowhere": ("nowhere", "known", None),
}


def cells_table(folder: Path) -> list[list[str]]:
    """Return the headline measures: per cent, the floor in brackets, and net transfer with its control."""
    shown, crossing = shown_in("headline"), shown_in("net_headline")
    rows = [
        [*_names(row), *_shares(row, shown), *(_with_interval(row.transfer.get(name)) for name in crossing)]
        for row in matrix(_cells(folder))
    ]
    return [[*NAMES, *map(_spaced, shown.values()), *crossing.values()], *rows]


def kinds_table(folder: Path) -> list[list[str]]:
    """Return the measures by kind of question."""
    shown = shown_in("kinds")
    return [[*NAMES, *map(_spaced, shown.values())], *([*_names(row), *_shares(row, shown)] for row in matrix(_cells(folder)))]


def groups_table(folder: Path) -> list[list[str]]:
    """Return the measures of facts that share a label, label by label."""
    shown, preference = shown_in("groups"), shown_in("net_headline")["efficacy"]
    head = ["facts", *NAMES, *map(_spaced, shown.values()), preference]
    rows = [
        [
            f"{group.group} ({group.num_facts})",
            *_names(group.row),
            *_shares(group.row, shown),
            _with_interval(group.row.transfer.get("efficacy")),
        ]
        for group in group_rows(_cells(folder))
    ]
    return [head, *rows]


def best_table(path: Path) -> list[list[str]]:
    """Return for each edit of a run which method is best in each column, and its number."""
    rows = runs.method_rows(runs.read(path))
    units: dict[str, float] = dict.fromkeys(shown_in("compared"), 100)
    columns = (*units, "transfer", *runs.LESS)
    table = []
    for edit in dict.fromkeys(row.edit for row in rows):
        cells = []
        for column in columns:
            method = runs.best(rows, edit, column)
            value = next((runs.value_of(row, column) for row in rows if (row.method, row.edit) == (method, edit)), math.nan)
            cells.append(f"{method} {units.get(column, 1) * value:.{0 if column in units else 2}f}" if method else "")
        table.append([edit, *cells])
    return [["edit", *map(_spaced, columns)], *table]


def collapse_table(path: Path) -> list[list[str]]:
    """Return how each method of a run of many batches ended: facts stored, recall, perplexity, largest norm."""
    rows = []
    for cell in runs.read(path).sequences:
        last = cell.checks[-1]
        kept = "" if last.kept is None else f"{100 * last.kept:.0f}"
        norm = max((norm for norm in last.weight_norms.values() if norm is not None), default=math.nan)
        perplexity = ", ".join(f"{code} × {ratio:.1f}" for code, ratio in runs.perplexity_ratios(cell.checks).items())
        ended = "collapsed" if last.collapsed else "stands"
        rows.append([cell.method, cell.edit, str(last.num_facts), ended, f"{100 * last.fresh:.0f}", kept, perplexity, f"{norm:.2f}"])
    return [["method", "edit", "facts stored", "then", "newest recalled", "earlier recalled", "perplexity", "largest norm"], *rows]


def audit_table(path: Path) -> list[list[str]]:
    """Return the counts of both benchmarks by the same checks."""
    audit = read_json(path, BenchmarkAudit)
    stock = audit.benchmark
    rows = [
        ["facts", str(stock.num_facts), str(audit.clm_bench_facts)],
        ["subject specific to China", f"{100 * stock.china / stock.num_facts:.1f} %", "19 % (our reading)"],
        ["facts with portability, zh / en", _pair(stock.probes["portability"]), "0 / 0"],
        ["facts with an alias of the subject, zh / en", _pair(stock.probes["alias"]), "0 / 0"],
        ["key collisions, subject first, zh / en", _pair(stock.key_collisions["first"]), _pair(audit.clm_bench["key_collisions"])],
        ["key collisions, subject last, zh / en", _pair(stock.key_collisions["last"]), ""],
    ]
    rows += [[f"{_spaced(name)}, {_codes(stock.checks[name])}", _pair(stock.checks[name]), _pair(audit.clm_bench[name])] for name in CHECKS]
    return [["", "xledit", "CLM-Bench"], *rows]


def mixture_table(path: Path) -> list[list[str]]:
    """Return the tokens of each language that there were and that were read, the shares of corpus, run and paper, and the last loss."""
    run = read_json(path, Pretrained)
    losses = {loss.code: loss.last for loss in training_tables.loss_rows(run, {})}
    rows = [
        [
            catalog.row(row.code).name,
            f"{row.available:,}",
            f"{row.taken:,}",
            f"{row.epochs:.1f}",
            *(_percent(share) for share in (row.share_available, row.share_taken, row.paper)),
            f"{losses.get(row.code, math.nan):.2f}",
        ]
        for row in training_tables.mixture_rows(run)
    ]
    head = ["language", "tokens there were", "read", "epochs", "% of the corpus", "% of what was read", "% in the paper", "loss"]
    return [head, *rows]


def fertility_table(path: Path) -> list[list[str]]:
    """Return how many tokens each natural language takes with our tokenizer and with the reference's."""
    rows = [
        [
            row.code,
            catalog.row(row.code).name,
            f"{row.ours:.2f}{' per character' if row.unit == 'character' else ''}",
            f"{row.reference:.2f}",
        ]
        for row in training_tables.fertility_rows(read_json(path, dict[str, LanguageTokens]))
        if row.code in catalog.NATURAL
    ]
    return [["code", "language", "tokens per word, ours", "reference"], *rows]


def recall_table(path: Path) -> list[list[str]]:
    """Return what the last checkpoint recalls in the mean of the languages and in each: per cent, what guessing gives in brackets."""
    recall = read_json(path, list[CheckpointRecall])[-1].recall
    rows = []
    for code in (None, *training_tables.in_order({row.language for row in recall})):
        cells = {
            head: training_tables.recalled(recall, status, wording=wording, names_alike=names_alike, language=code)
            for head, (status, wording, names_alike) in RECALL.items()
        }
        shown = [_recalled(cell, guessing=head.endswith("(guessing)")) for head, cell in cells.items()]
        rows.append([catalog.row(code).name if code else "mean", *shown])
    return [["asked in", *RECALL], *rows]


def crossing_table(path: Path) -> list[list[str]]:
    """Return how far facts and edits cross in the last checkpoints of each cell, and how unified facts are."""
    found = read_json(path, Findings)
    methods = list(found.ends[0].edits)
    head = ["names", "told in both", "English tokens", "known where told in both", "facts cross"]
    head += [f"{name}: {what}" for name in methods for what in ("stored", "edits cross")]
    rows = [
        [
            KINDS[row.names],
            f"{row.everywhere:.0%}",
            f"{row.english:.0%}",
            f"{row.known.value:.0%}",
            said(row.facts),
            *(cell for name in methods for cell in (f"{row.stored[name].value:.0%}", said(row.edits[name]))),
            said(row.unification),
        ]
        for row in found.ends
    ]
    return [[*head, "unification"], *rows]


def predictions_table(path: Path) -> list[list[str]]:
    """Return how each measure, early, half-way and at the end, goes with crossing of facts and of edits at the end, over all models."""
    found = [row for row in read_json(path, Findings).predictions[ALL] if row.target in ("facts", f"edits by {MAIN}")]
    tokens = sorted({row.tokens for row in found})
    shown = [tokens[place] for place in (len(tokens) // 4, len(tokens) // 2, len(tokens) - 1)]
    by_place = {(row.measure, row.target, row.tokens): said(row.correlation) for row in found}
    pairs = dict.fromkeys((row.measure, row.target) for row in found)
    return [
        ["measure", "crossing at the end of", *(f"after {number / 1000:,.0f} thousand tokens" for number in shown)],
        *([*pair, *(by_place[*pair, number] for number in shown)] for pair in pairs),
    ]


def benchmark_table(folder: Path) -> list[list[str]]:
    """Return what base and tuned models answer rightly, all languages together: per cent with the interval, most confusion, and chance."""
    models = training_benchmark.titled({path.stem: read_json(path, Benchmark) for path in folder.glob("*.json")})
    rows = []
    for row in training_benchmark.rows(models):
        asked = [cell for cell in row.cells if cell]
        confused = max((100 * cell.confused.value for cell in asked if cell.confused), default=None)
        rows.append(
            [
                training_benchmark.ASKED[row.asked],
                row.title,
                *(_rate(cell.right) if cell else "" for cell in row.cells),
                "" if confused is None else f"{confused:.0f}",
                f"{100 * asked[0].chance:.0f}",
            ]
        )
    told = (f"told {kind.label}" for kind in training_benchmark.KINDS_SHOWN)
    return [["asked by", "model", *told, "in another language's words, at most", "drawing"], *rows]


def costs_table(folder: Path) -> list[list[str]]:
    """Return the costs of a folder's runs that name a device, a column per run."""
    all_runs = {path.stem: named.read(path.stem) for path in sorted(folder.glob("*.yaml"))}
    tables = {
        name: sizes.rows(run.device, settings.check_values(run.params, settings.read_params(), str(named.path_of(name))))
        for name, run in all_runs.items()
        if run.device
    }
    return [["", *tables], *([rows[0][0], *(row[1] for row in rows)] for rows in zip(*tables.values(), strict=True))]


def mutation_sentence(path: Path) -> str:
    """Return how many planted bugs the fast tests see."""
    found = read_json(path, Mutation)
    mutants, run, killed = (sum(getattr(row, name) for row in found.modules.values()) for name in ("mutants", "run", "killed"))
    return (
        f"Of {run:,} small bugs planted one at a time (of {mutants:,} that `mutmut` makes in the {len(found.modules)} modules that make "
        f"the numbers; `make mutation`, {found.date}), the fast tests see {killed:,} ({100 * killed / run:.1f} %); "
        f"why each of the others is let live stands in [{path.name}]({path})."
    )


def _recalled(found: training_tables.Recalled, *, guessing: bool) -> str:
    if not found.num_facts:
        return ""
    null = "" if math.isnan(found.null) or not guessing else f" ({100 * found.null:.0f})"
    return f"{100 * found.share.value:.0f}{null}"


def _rate(found: Rate) -> str:
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


TABLES: dict[str, Callable[[Path], list[list[str]]]] = {
    "cells": cells_table,
    "kinds": kinds_table,
    "groups": groups_table,
    "audit": audit_table,
    "best": best_table,
    "collapse": collapse_table,
    "mixture": mixture_table,
    "fertility": fertility_table,
    "recall": recall_table,
    "crossing": crossing_table,
    "predictions": predictions_table,
    "benchmark": benchmark_table,
    "costs": costs_table,
}
SENTENCES: dict[str, Callable[[Path], str]] = {"mutation": mutation_sentence}


def block(kind: str, path: Path) -> str:
    """Return what stands between two marks."""
    return f"{SENTENCES[kind](path)}\n" if kind in SENTENCES else markdown(TABLES[kind](path))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a markdown table, the header first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def _cells(folder: Path) -> list[CellSummary]:
    cells = [read_json(path, CellSummary) for path in folder.glob("*.json")]
    return sorted(cells, key=lambda cell: (cell.method != "memit", cell.method, EDITS.index(cell.edit)))


def _names(row: MatrixRow) -> list[str]:
    return [row.method, row.edit, row.probe]


def _shares(row: MatrixRow, names: Iterable[str]) -> list[str]:
    return [_share(row.measured.get(name)) for name in names]


def _share(measured: Measured | None) -> str:
    return "" if measured is None or math.isnan(measured.value) else f"{100 * measured.value:.0f} ({100 * measured.floor:.0f})"


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _with_interval(measured: Measured | None) -> str:
    return "" if measured is None or math.isnan(measured.value) else f"{measured.value:.2f} [{measured.low:.2f}, {measured.high:.2f}]"


def _pair(counts: dict[str, int]) -> str:
    return " / ".join(str(counts[code]) for code in ("zh", "en", "all") if code in counts)


def _codes(counts: dict[str, int]) -> str:
    return " / ".join(code for code in ("zh", "en", "all") if code in counts)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def main() -> int:
    """Rewrite the tables. Returns the exit status."""
    differing = [path for path in DOCUMENTS if not update(path, check="--check" in sys.argv)]
    return int(bool(differing))


def update(path: Path, check: bool) -> bool:
    """Rewrite a document's tables, or only compare. Returns False where it is to be compared and differs."""
    text = path.read_text(encoding="utf-8")
    fresh = BLOCK.sub(lambda match: match[1] + block(match[2], Path(match[3])) + match[4], text)
    if fresh == text:
        return True
    if check:
        print(f"{path}: a table or a sentence is not the one of its results; run `python -m tools.readme`", file=sys.stderr)
        return False
    write_bytes(path, fresh.encode())
    return True


if __name__ == "__main__":
    sys.exit(main())
