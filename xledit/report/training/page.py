"""The training pipeline's results to one self-contained HTML page: corpus, mixture, loss, and the facts that the model recalls."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from xledit.report.common.drawing import inline
from xledit.report.common.numbers import or_nan, plural
from xledit.report.common.page import template
from xledit.report.training import benchmark, benchmark_figures, figures, interpret, interpret_figures, tables
from xledit.training.benchmark_results import Benchmark
from xledit.training.catalog import NATURAL, row
from xledit.training.results import CheckpointRecall, CorpusCounts, LanguageTokens, Pretrained, Recall, Wording

TEMPLATE = "page.html.j2"
ASKED: dict[Wording, str] = {
    "told": "Asked in the very sentence that told the fact",
    "known": "Asked in a known wording that did not tell the fact",
    "unseen": "Asked in a wording that the corpus does not have",
}


class TrainingRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is rendered from. ``settings`` are shown as they are; ``reference`` names the model whose tokenizer is compared.

    ``benchmarks`` are what models answer, by the names of the stage's outputs; ``paper`` is FuxiTranyu's table.
    """

    name: str
    seed: int
    reference: str
    settings: Mapping[str, object]
    corpus: CorpusCounts
    tokens: Mapping[str, LanguageTokens]
    pretrained: Pretrained
    recall: Sequence[CheckpointRecall]
    analysed: Sequence[interpret.Analysed] = ()
    benchmarks: Mapping[str, Benchmark] = {}
    paper: Sequence[benchmark.PaperRow] = ()


def render(run: TrainingRun) -> str:
    """Return the page as HTML text."""
    return template(Path(__file__).parent, TEMPLATE).render(
        run=run,
        row=row,
        natural=NATURAL,
        told=tables.TOLD,
        wordings=tables.WORDINGS,
        level=tables.LEVEL,
        figures=_figures(run),
        corpus=tables.corpus_rows(run.corpus),
        mixture=tables.mixture_rows(run.pretrained),
        fertility=tables.fertility_rows(run.tokens),
        losses=tables.loss_rows(run.pretrained, run.tokens),
        recalled=tables.recall_rows(run.recall[-1].recall),
        pairs=tables.pair_rows(run.recall[-1].recall, "known", names_alike=True),
        about_corpus=about_corpus(run.corpus),
        about_mixture=about_mixture(run.pretrained),
        about_fertility=about_fertility(run.tokens),
        about_losses=about_losses(run.pretrained, run.tokens),
        about_recall=about_recall(run.recall[-1].recall),
        crossing=crossing(run.recall[-1].recall),
        analysed=run.analysed,
        interpret=interpret,
        benchmarks=benchmark.titled(run.benchmarks),
        benchmark=benchmark,
        paper=run.paper,
    )


def _figures(run: TrainingRun) -> dict[str, Markup]:
    """Return the page's figures, SVG by name. They are not escaped: their words come from our settings, never from a model."""
    drawn = {
        "losses": (figures.losses(run.pretrained), "loss of each language by tokens seen; the table has the last numbers"),
        "recall": (figures.recall(run.recall), "share of facts recalled by tokens seen; the table has the last numbers"),
    }
    for place, model in enumerate(run.analysed):
        states = "likeness of languages by depth beside the nulls; the table has the numbers"
        drawn[f"states-{place}"] = (interpret_figures.states([model]), states)
        drawn[f"lens-{place}"] = (interpret_figures.lens(model.states), "probability of the answer by depth and language, beside the null")
    if any(model.world for model in run.benchmarks.values()):
        answered = "share of right answers by model, way of asking and where facts are told; the table has the numbers"
        drawn["benchmark"] = (benchmark_figures.answered(benchmark.titled(run.benchmarks)), answered)
    return {name: Markup(inline(svg, name, label)) for name, (svg, label) in drawn.items()}


def about_corpus(counts: CorpusCounts) -> str:
    """Return a sentence: how many documents were read and kept, and how many each filter dropped."""
    rows = tables.corpus_rows(counts)
    read, kept = sum(language.read for language in rows), sum(language.kept for language in rows)
    reasons = dict.fromkeys(reason for language in rows for reason in language.dropped)
    dropped = {reason: sum(language.dropped.get(reason, 0) for language in rows) for reason in reasons}
    languages = sum(language.code in NATURAL for language in rows)
    return (
        f"Of {read:,} documents in {plural(languages, 'natural language')} and {len(rows) - languages} of programming, {kept:,} are kept, "
        f"{sum(language.bytes or 0 for language in rows) / 1e6:.1f} MB of text; "
        + (", ".join(f"{reason} dropped {number:,} ({number / read:.0%})" for reason, number in dropped.items()) or "no filter dropped any")
        + "."
    )


def about_mixture(run: Pretrained) -> str:
    """Return sentences: the share of tokens that the mixture moves between languages, and how often a token was read."""
    rows = tables.mixture_rows(run)
    moved = sum(abs(language.share_taken - language.share_available) for language in rows) / 2
    least, most = (choose(rows, key=lambda language: language.available) for choose in (min, max))
    rarely, often = (choose(rows, key=lambda language: language.epochs) for choose in (min, max))
    changed = (
        f"The mixture moves {moved:.0%} of the tokens from one language to another: {_name(most.code)}, of which there is most, has "
        f"{most.share_taken:.1%} of what was read instead of {most.share_available:.1%}, {_name(least.code)}, of which there is least, "
        f"{least.share_taken:.1%} instead of {least.share_available:.1%}."
        if moved >= 0.005
        else "The mixture changes nothing: the languages' shares are those of the corpus."
    )
    return (
        f"{changed} What there is was read between {rarely.epochs:.1f} times ({_name(rarely.code)}) and {often.epochs:.1f} times "
        f"({_name(often.code)})."
    )


def about_fertility(tokens: Mapping[str, LanguageTokens]) -> str:
    """Return in how many natural languages our tokenizer needs more tokens than the reference's, and by how much."""
    rows = [language for language in tables.fertility_rows(tokens) if language.code in NATURAL]
    if not rows:
        return "There is no natural language."
    more = sum(language.ratio > 1 for language in rows)
    least, most = (choose(rows, key=lambda language: language.ratio) for choose in (min, max))
    return (
        f"Our tokenizer needs more tokens than the reference for {_of(more, len(rows), 'natural language')}: from {least.ratio:.2f} times "
        f"as many ({_name(least.code)}) to {most.ratio:.2f} times ({_name(most.code)}), in the median "
        f"{statistics.median(language.ratio for language in rows):.2f}."
    )


def about_losses(run: Pretrained, tokens: Mapping[str, LanguageTokens]) -> str:
    """Return sentences: by how much the loss fell (nats per token), in how many languages, and the last loss in bits per byte."""
    first, last = (or_nan(stretch.loss) for stretch in (run.losses[0], run.losses[-1]))
    if not math.isfinite(last):
        return "The loss before the last checkpoint is not finite: the run has come to nothing."
    if not last < first:
        return f"The loss has not fallen ({first:.2f} nats per token at first, {last:.2f} at last): the model has learned nothing."
    rows = tables.loss_rows(run, tokens)
    fell = sum(language.last < language.first for language in rows)
    sentence = f"The loss fell from {first:.2f} to {last:.2f} nats per token, and so it did in {_of(fell, len(rows), 'language')}."
    finite = [language for language in rows if math.isfinite(language.bits_per_byte)]
    if not finite:
        return sentence
    least, most = (choose(finite, key=lambda language: language.bits_per_byte) for choose in (min, max))
    return (
        f"{sentence} Per byte, which languages can be compared by, {_name(least.code)} ends lowest with {least.bits_per_byte:.2f} bits, "
        f"{_name(most.code)} highest with {most.bits_per_byte:.2f}."
    )


def about_recall(recall: Sequence[Recall]) -> list[str]:
    """Return a sentence for each wording: the share recalled of each kind of facts, beside guessing and how many languages beat it."""
    sentences = []
    for wording, asked in ASKED.items():
        parts = []
        for status, names_alike, where in tables.KINDS:
            found = tables.recalled(recall, status, wording=wording, names_alike=names_alike)
            if not found.num_facts:
                continue
            better, num_compared = tables.above_guessing(recall, status, wording=wording, names_alike=names_alike)
            guessing = "" if math.isnan(found.null) else f"guessing {found.null:.0%}; "
            beside = f" ({guessing}{len(better)} of {num_compared})" if num_compared and status != "nowhere" else ""
            parts.append(f"{found.share.value:.0%} of facts told {where}{beside}")
        if parts:
            sentences.append(f"{asked}, the model recalls in the mean of the languages {'; '.join(parts)}.")
    return sentences


def crossing(recall: Sequence[Recall]) -> str:
    """Return a sentence on whether facts told in another language only are recalled, asked in known wordings, by kind of names."""
    above = {
        names_alike: tables.above_guessing(recall, "elsewhere", wording="known", names_alike=names_alike) for names_alike in (True, False)
    }
    if not any(num_compared for _better, num_compared in above.values()):
        return "No language has both facts told in another language only and facts told nowhere: whether facts cross cannot be told."
    if not any(
        tables.above_guessing(recall, status, wording=wording, names_alike=names_alike)[0]
        for status, names_alike, _where in tables.KINDS
        for wording in ("told", "known")
    ):
        return (
            "No kind of fact is recalled clearly more often than guessing gives: the model has learned nothing that could cross, as far as "
            "so few facts tell."
        )
    parts = []
    for names_alike, (better, num_compared) in above.items():
        if num_compared:
            found = tables.recalled(recall, "elsewhere", wording="known", names_alike=names_alike)
            names = "names are spelt alike" if names_alike else "letters differ"
            clearly = f"clearly above in {_of(len(better), num_compared, 'language')}"
            parts.append(f"{found.share.value:.0%} where {names} ({_apart(found)}{clearly})")
    begin = "Of" if any(better for better, _num_compared in above.values()) else "Nothing shows that a fact crosses: of"
    return (
        f"{begin} facts told in another language only, asked in a known wording, the model recalls in the mean of the languages "
        f"{' and '.join(parts)}."
    )


def _apart(found: tables.Recalled) -> str:
    """Return what guessing gives and how many points of per cent lie between; nothing where it is not known."""
    if math.isnan(found.null):
        return ""
    points = round(100 * (found.share.value - found.null))
    return f"guessing {found.null:.0%}: {plural(abs(points), 'point')} {'above' if points >= 0 else 'below'} it; "


def _of(number: int, total: int, noun: str) -> str:
    return f"{number or 'none'} of {plural(total, noun)}"


def _name(code: str) -> str:
    return row(code).name
