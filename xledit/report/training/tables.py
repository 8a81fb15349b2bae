"""A training run to rows: plain data for its page, its metrics file and the README."""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from scipy import stats

from xledit.evaluation.intervals import CONFIDENCE
from xledit.report.common.numbers import DECIMALS, NAN, Measured, or_nan
from xledit.training.catalog import PROGRAMMING, row
from xledit.training.results import CheckpointRecall, CorpusCounts, LanguageTokens, Pretrained, Recall, Status, Wording

TOLD: dict[Status, str] = {
    "everywhere": "in every language",
    "here": "in this language only",
    "elsewhere": "in another language only",
    "nowhere": "nowhere",
}
WORDINGS: dict[Wording, str] = {"told": "the told sentence", "known": "a known wording", "unseen": "an unseen wording"}
# what recall is told by where there is no room for more: status, kind of names (None: both), in words
KINDS: tuple[tuple[Status, bool | None, str], ...] = (
    ("everywhere", None, TOLD["everywhere"]),
    ("here", None, TOLD["here"]),
    ("elsewhere", True, f"{TOLD['elsewhere']}, names alike"),
    ("elsewhere", False, f"{TOLD['elsewhere']}, own letters"),
    ("nowhere", None, TOLD["nowhere"]),
)
# level of the test: with 4 kinds of facts in 8 languages, 5 % would call one or two of them recalled by chance
LEVEL = 0.01


class CorpusRow(msgspec.Struct, frozen=True, kw_only=True):
    """A language's documents: read, dropped by reason, and kept, with the UTF-8 bytes of those (None: not counted)."""

    code: str
    read: int
    dropped: dict[str, int]
    kept: int
    bytes: int | None


class MixtureRow(msgspec.Struct, frozen=True, kw_only=True):
    """A language's tokens: in the corpus (``available``) and read (``taken``), counts and shares of all languages of the run.

    ``epochs`` is how often each token was read; ``paper`` is the share in the paper's corpus, of all 59 languages, NaN where it gives none.
    """

    code: str
    available: int
    taken: int
    share_available: float
    share_taken: float
    epochs: float
    paper: float


class FertilityRow(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per ``unit`` and per UTF-8 byte, of our tokenizer and of the reference; ``ratio`` is ours over the reference's.

    Where no spaces separate words the unit is a character.
    """

    code: str
    unit: Literal["word", "character"]
    ours: float
    reference: float
    ours_per_byte: float
    reference_per_byte: float
    ratio: float


class LossRow(msgspec.Struct, frozen=True, kw_only=True):
    """A language's loss (nats per token) up to the first and the last checkpoint before which it was read; NaN: not finite, or not read.

    ``tokens`` had been read at that last checkpoint. ``bits_per_byte`` is the last loss per UTF-8 byte, which can be compared between
    languages.
    """

    code: str
    first: float
    last: float
    tokens: int
    bits_per_byte: float


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """The share of ``num_facts`` that is recalled, with its 95 % interval over facts; a mean of languages: lowest and highest of them.

    ``null`` is the share that guessing gives; NaN where no facts told nowhere say so. Without facts there are NaNs.
    """

    share: Measured
    num_facts: int
    null: float


class RecallRow(msgspec.Struct, frozen=True, kw_only=True):
    """Shares recalled in one language (None: the mean of all), kind of names and wording, by where facts are told.

    A status without facts is left out.
    """

    language: str | None
    names_alike: bool
    wording: Wording
    by_status: dict[Status, Recalled]


def corpus_rows(counts: CorpusCounts) -> list[CorpusRow]:
    """Return the documents kept and dropped of each language, natural languages first."""
    rows = []
    for code in in_order(counts.languages):
        steps = counts.languages[code]
        dropped: dict[str, int] = {}
        for step in steps:
            for reason, number in step.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + number
        kept = steps[-1].documents
        rows.append(CorpusRow(code=code, read=kept + sum(dropped.values()), dropped=dropped, kept=kept, bytes=steps[-1].bytes))
    return rows


def mixture_rows(run: Pretrained) -> list[MixtureRow]:
    """Return the mixture as it was read, natural languages first."""
    available, taken = sum(run.available.values()), sum(run.taken.values())
    return [
        MixtureRow(
            code=code,
            available=run.available[code],
            taken=run.taken.get(code, 0),
            share_available=run.available[code] / available,
            share_taken=run.taken.get(code, 0) / taken,
            epochs=run.taken.get(code, 0) / run.available[code],
            paper=_paper(code),
        )
        for code in in_order(run.available)
    ]


def _paper(code: str) -> float:
    share = getattr(row(code), "share", None)  # of natural languages
    return NAN if share is None else share / 100


def fertility_rows(tokens: Mapping[str, LanguageTokens]) -> list[FertilityRow]:
    """Return the fertility of both tokenizers in each language, natural languages first."""
    rows = []
    for code in in_order(tokens):
        ours, reference = tokens[code].fertility, tokens[code].reference
        unit = "character" if row(code).writing == "unspaced" else "word"
        rows.append(
            FertilityRow(
                code=code,
                unit=unit,
                ours=getattr(ours, f"per_{unit}"),
                reference=getattr(reference, f"per_{unit}"),
                ours_per_byte=ours.per_byte,
                reference_per_byte=reference.per_byte,
                ratio=ours.per_byte / reference.per_byte,
            )
        )
    return rows


def loss_rows(run: Pretrained, tokens: Mapping[str, LanguageTokens]) -> list[LossRow]:
    """Return the losses of each language of the mixture, natural languages first."""
    rows = []
    for code in in_order(run.taken):
        points = [(stretch.tokens, or_nan(stretch.languages[code])) for stretch in run.losses if code in stretch.languages] or [(0, NAN)]
        last = points[-1][1]
        per_byte = tokens[code].fertility.per_byte if code in tokens else NAN
        rows.append(LossRow(code=code, first=points[0][1], last=last, tokens=points[-1][0], bits_per_byte=last / math.log(2) * per_byte))
    return rows


def recalled(
    recall: Sequence[Recall], status: Status, *, wording: Wording, names_alike: bool | None = None, language: str | None = None
) -> Recalled:
    """Return the share recalled in a language (None: the mean of all) of facts of this status, whichever language tells them.

    ``names_alike``: of one kind of names alone; None: of both.
    """
    chosen = _chosen(recall, status, wording, names_alike)
    if language is not None:
        return _pooled(chosen.get(language, ()))
    languages = [_pooled(outcomes) for outcomes in chosen.values()] or [_pooled(())]
    shares = [found.share.value for found in languages]
    return Recalled(
        share=Measured(statistics.fmean(shares), min(shares), max(shares)),
        num_facts=sum(found.num_facts for found in languages),
        null=statistics.fmean(found.null for found in languages),
    )


def recall_rows(recall: Sequence[Recall]) -> list[RecallRow]:
    """Return what one checkpoint recalls: the mean of the languages, then each; names alike, then own letters; wording by wording.

    A row without facts is left out.
    """
    rows = []
    for code in (None, *in_order({outcome.language for outcome in recall})):
        for names_alike, wording in itertools.product((True, False), WORDINGS):
            by_status: dict[Status, Recalled] = {
                status: cell
                for status in TOLD
                if (cell := recalled(recall, status, wording=wording, names_alike=names_alike, language=code)).num_facts
            }
            if by_status:
                rows.append(RecallRow(language=code, names_alike=names_alike, wording=wording, by_status=by_status))
    return rows


def pair_rows(recall: Sequence[Recall], wording: Wording, *, names_alike: bool) -> dict[str, dict[str, Recalled]]:
    """Return what is recalled of facts told in one language only, by that language and by the one asked in, a cell for each pair."""
    cells: dict[tuple[str, str], list[Recall]] = {}
    for outcome in recall:
        if outcome.status in ("here", "elsewhere") and (outcome.wording, outcome.names_alike) == (wording, names_alike):
            cells.setdefault((outcome.told, outcome.language), []).append(outcome)
    told, asked = (in_order({pair[place] for pair in cells}) for place in (0, 1))
    return {one: {other: _pooled(cells.get((one, other), ())) for other in asked} for one in told}


def above_guessing(recall: Sequence[Recall], status: Status, *, wording: Wording, names_alike: bool | None = None) -> tuple[list[str], int]:
    """Return the languages that recall facts of this status clearly more often than facts told nowhere, and how many have both.

    Clearly: a one-sided Fisher's exact test at ``LEVEL``, in each language by itself. Of both kinds of names the facts told nowhere
    are asked in the same wording, in a known one in place of the told sentence, which they lack.
    """
    guessed = _chosen(recall, "nowhere", "known" if wording == "told" else wording)
    both = {code: rows for code, rows in _chosen(recall, status, wording, names_alike).items() if code in guessed}
    tests: dict[str, Any] = {
        code: stats.fisher_exact([_counts(rows), _counts(guessed[code])], alternative="greater") for code, rows in both.items()
    }
    return in_order(code for code, test in tests.items() if test.pvalue < LEVEL), len(both)


def _chosen(recall: Sequence[Recall], status: Status, wording: Wording, names_alike: bool | None = None) -> dict[str, list[Recall]]:
    """Return the rows of a status, wording and kind of names (None: both), by language."""
    chosen: dict[str, list[Recall]] = {}
    for outcome in recall:
        if (outcome.status, outcome.wording) == (status, wording) and names_alike in (None, outcome.names_alike):
            chosen.setdefault(outcome.language, []).append(outcome)
    return chosen


def _pooled(outcomes: Sequence[Recall]) -> Recalled:
    """Return what is recalled of all these outcomes' facts, with Wilson's interval, since a bootstrap of 0 of 13 facts gives 0 to 0."""
    said, missed = _counts(outcomes)
    if not (num_facts := said + missed):
        return Recalled(share=Measured(NAN), num_facts=0, null=NAN)
    interval = stats.binomtest(said, num_facts).proportion_ci(CONFIDENCE, "wilson")
    null = math.fsum(or_nan(outcome.null) * outcome.num_facts for outcome in outcomes) / num_facts
    return Recalled(share=Measured(said / num_facts, interval.low, interval.high), num_facts=num_facts, null=null)


def _counts(outcomes: Sequence[Recall]) -> tuple[int, int]:
    """Return how many of the outcomes' facts are recalled and how many are not."""
    said = sum(round(outcome.share * outcome.num_facts) for outcome in outcomes)
    return said, sum(outcome.num_facts for outcome in outcomes) - said


def metrics_tree(run: Pretrained, checkpoints: Sequence[CheckpointRecall]) -> dict[str, object]:
    """Return the few numbers of metrics.json: the last loss and recall.

    Loss in all and by language; recall by language, kind of names, status and wording.
    """
    shares: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for found in recall_rows(checkpoints[-1].recall):
        by_status = shares.setdefault(found.language or "mean", {}).setdefault("alike" if found.names_alike else "own", {})
        for status, cell in found.by_status.items():
            by_status.setdefault(status, {})[found.wording] = round(cell.share.value, DECIMALS)
    losses = {loss.code: round(loss.last, DECIMALS) for loss in loss_rows(run, {})}
    return {"loss": {"all": round(or_nan(run.losses[-1].loss), DECIMALS), **losses}, "recall": shares}


def in_order(codes: Iterable[str]) -> list[str]:
    """Return language codes, natural languages first, each part sorted."""
    return sorted(codes, key=lambda code: (code in PROGRAMMING, code))
