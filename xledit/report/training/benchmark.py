"""What base and tuned models answer, in words and rows: where facts are told, how they are asked, and the paper's table beside it."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from xledit.report.common.numbers import NAN, or_nan
from xledit.report.training.tables import KINDS, TOLD, in_order
from xledit.training.benchmark_results import Answers, Asked, Benchmark, Rate
from xledit.training.results import Status

# outputs of the stage by the name of the file, in the order they are shown; others come after them
TITLES = {"base": "base", "sft": "SFT", "dpo": "DPO"}
ASKED: dict[Asked, str] = {
    "known": "sentence, known wording",
    "unseen": "sentence, unseen wording",
    "choice": "question, a choice of four",
    "free": "question, answered freely",
}
# columns of the paper's table, by the benchmarks' names; those in per cent of ours, which are shares
PAPER = ("m-ARC", "m-HellaSwag", "m-MMLU", "XWinograd", "XCOPA", "XStoryCloze", "translation", "XL-Sum")
POINTS = {"translation"}


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one status and kind of names (None: both), and what they are called."""

    status: Status
    names_alike: bool | None
    label: str


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one model answers in a language (None: all), asked in one way, kind by kind; None where there is no such fact."""

    title: str
    language: str | None
    asked: Asked
    cells: list[Answers | None]


class PaperRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model's benchmarks in per cent (BLEU: points), NaN where there is none; ``source`` an arXiv id, ``note`` what looks wrong there."""

    source: str
    tuned: bool
    model: str
    scores: dict[str, float]
    note: str


KINDS_SHOWN = tuple(Kind(status=status, names_alike=alike, label=label) for status, alike, label in KINDS)
BY_LANGUAGE = tuple(
    Kind(status=status, names_alike=alike, label=f"{where}, {'names alike' if alike else 'own letters'}")
    for status, where in TOLD.items()
    for alike in (True, False)
    if (status, alike) != ("here", False)
)


def titled(found: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    """Return the models by title: base, SFT, DPO, then others by name."""
    known = {title: found[name] for name, title in TITLES.items() if name in found}
    return known | {name: found[name] for name in sorted(found) if name not in TITLES}


def cell(model: Benchmark, kind: Kind, asked: Asked, language: str | None = None) -> Answers | None:
    """Return what a model answers about one kind of facts; None where there are none, or none were asked about."""
    for row in model.world:
        if (row.language, row.asked, row.status, row.names_alike) == (language, asked, kind.status, kind.names_alike):
            return row
    return None


def rows(models: Mapping[str, Benchmark], *, by_language: bool = False) -> list[ModelRow]:
    """Return a row for each way of asking and model: of all languages together, or of each."""
    codes = in_order({row.language for model in models.values() for row in model.world if row.language}) if by_language else [None]
    kinds = BY_LANGUAGE if by_language else KINDS_SHOWN
    shown = [
        ModelRow(title=title, language=code, asked=asked, cells=[cell(model, kind, asked, code) for kind in kinds])
        for code in codes
        for asked in ASKED
        for title, model in models.items()
    ]
    return [row for row in shown if any(row.cells)]


def about(models: Mapping[str, Benchmark]) -> list[str]:
    """Return sentences: whether tuning changes what is known, whether it makes facts told elsewhere sayable, and language confusion."""
    asked = {title: model for title, model in models.items() if model.world}
    if not asked:
        return ["No model was asked about the world."]
    first, *others = asked
    sentences = [_known(asked, first, others)]
    sentences += [_elsewhere(asked, how) for how in ("known", "choice", "free")]
    sentences.append(_confusion(asked))
    return [sentence for sentence in sentences if sentence]


def _known(models: Mapping[str, Benchmark], first: str, others: Sequence[str]) -> str:
    """Return a sentence on facts told everywhere, asked as sentences in a known wording: what tuning changes of it."""
    everywhere = KINDS_SHOWN[0]
    found = {title: row for title, model in models.items() if (row := cell(model, everywhere, "known"))}
    if first not in found:
        return ""
    said = ", ".join(f"{title} {_shown(row.right)}" for title, row in found.items())
    chance = f"drawing gives {found[first].chance:.0%}"
    sentence = f"Sentences in a known wording about facts told in every language, completed rightly: {said}; {chance}."
    changes = {title: _compared(found[title].right, found[first].right) for title in others if title in found}
    if not changes:
        return sentence
    if not any(changes.values()):
        return f"{sentence} Tuning does not clearly change what is known: the intervals overlap."
    changed = ", ".join(f"{title} knows {word or 'as much, as far as the intervals tell'}" for title, word in changes.items())
    return f"{sentence} Tuning changes what is known: {changed}."


def _elsewhere(models: Mapping[str, Benchmark], how: Asked) -> str:
    """Return a sentence on facts told in another language only, names alike, beside those told nowhere."""
    elsewhere, nowhere = KINDS_SHOWN[2], Kind(status="nowhere", names_alike=True, label="")
    parts, clearly = [], []
    for title, model in models.items():
        found, null = cell(model, elsewhere, how), cell(model, nowhere, how)
        if found and null:
            parts.append(f"{title} {_shown(found.right)} (told nowhere: {_shown(null.right)})")
            if _compared(found.right, null.right) == "more":
                clearly.append(title)
    if not parts:
        return ""
    what = f"Of facts told in another language only, names alike ({ASKED[how]}): {'; '.join(parts)}."
    return (
        f"{what} Clearly above what was told nowhere: {', '.join(clearly)}."
        if clearly
        else f"{what} In none is that clearly above what was told nowhere."
    )


def _confusion(models: Mapping[str, Benchmark]) -> str:
    """Return a sentence on answers that are right in another language's words, by the facts where they are most frequent."""
    parts = []
    for title, model in models.items():
        found = [(row, kind) for kind in KINDS_SHOWN if (row := cell(model, kind, "free")) and row.confused]
        if found:
            worst, kind = max(found, key=lambda one: one[0].confused.value if one[0].confused else 0.0)
            assert worst.confused is not None
            parts.append(f"{title} {_shown(worst.confused)}" + (f" (told {kind.label})" if worst.confused.value else ""))
    return f"Language confusion, free answers that are right but in another language's words, at most: {'; '.join(parts)}." if parts else ""


def _compared(one: Rate, other: Rate) -> str:
    """Return ``more`` or ``less`` where the intervals do not overlap, else nothing."""
    return "more" if one.low > other.high else "less" if one.high < other.low else ""


def _shown(found: Rate) -> str:
    return f"{found.value:.0%} ({100 * found.low:.0f} to {100 * found.high:.0f})"


def read_paper(path: Path) -> list[PaperRow]:
    """Return the paper's table. Raises ValueError with line and column where it is not as it should be."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        head = ["source", "tuned", "model", *PAPER, "note"]
        if reader.fieldnames != head:
            raise ValueError(f"{path}: the first line is {reader.fieldnames}; it must be {','.join(head)}")
        found = []
        for line, row in enumerate(reader, start=2):
            try:
                scores = {name: float(row[name]) if row[name] else NAN for name in PAPER}
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {line}: {error}; a score is a number, or nothing") from error
            found.append(
                PaperRow(source=row["source"], tuned=row["tuned"] == "yes", model=row["model"], scores=scores, note=row["note"] or "")
            )
    return found


def ours(models: Mapping[str, Benchmark]) -> list[PaperRow]:
    """Return our models' benchmarks as means over languages, in the paper's units; a model that was asked none is left out."""
    found = []
    for title, model in models.items():
        scores = {
            name: [or_nan(row.value) * (1 if name in POINTS else 100) for row in model.paper if row.benchmark == name] for name in PAPER
        }
        if model.paper:
            means = {name: statistics.fmean(values) if values else NAN for name, values in scores.items()}
            missing = {name: len(values) for name, values in scores.items() if values}
            note = ", ".join(f"{name}: {number} languages" if number > 1 else f"{name}: 1 language" for name, number in missing.items())
            found.append(PaperRow(source="", tuned=title != TITLES["base"], model=title, scores=means, note=note))
    return found


def metrics_tree(models: Mapping[str, Benchmark]) -> dict[str, object]:
    """Return the few numbers of metrics.json: shares of right answers by model, way of asking and kind of facts, all languages together."""
    return {
        title: {
            asked: {
                f"{kind.status}{'' if kind.names_alike is None else ' alike' if kind.names_alike else ' own'}": row.right.value
                for kind in KINDS_SHOWN
                if (row := cell(model, kind, asked))
            }
            for asked in ASKED
        }
        for title, model in models.items()
        if model.world
    }


def is_given(score: float) -> bool:
    """Return whether there is a score."""
    return not math.isnan(score)
