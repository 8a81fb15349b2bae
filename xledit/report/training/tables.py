"""A training run to rows: plain data for its page, its metrics file and the README."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from scipy import stats

from xledit.evaluation.intervals import CONFIDENCE
from xledit.report.common.numbers import DECIMALS, NAN, Measured, or_nan
from xledit.training.catalog import PROGRAMMING, row
from xledit.training.results import CheckpointRecall, CorpusCounts, LanguageTokens, Pretrained, Recall, Status

STATED: dict[Status, str] = {
    "everywhere": "in every language",
    "here": "in this language only",
    "elsewhere": "in another language only",
    "nowhere": "nowhere",
}
# level of the test: with 3 statuses in 8 languages, 5 % would call one of them recalled by chance
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
    """The share of ``num_facts`` that is recalled, with its 95 % interval over facts; a mean: lowest and highest language."""

    share: Measured
    num_facts: int


class RecallRow(msgspec.Struct, frozen=True, kw_only=True):
    """Shares recalled in one language (None: the mean of all) and kind of wording, by where facts are stated.

    A status without facts is left out.
    """

    language: str | None
    seen: bool
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


def recall_rows(recall: Sequence[Recall]) -> list[RecallRow]:
    """Return the shares that one checkpoint recalls: two rows for the mean of the languages, then two per language (seen, not seen)."""
    rows = [
        RecallRow(
            language=None,
            seen=seen,
            by_status={
                status: Recalled(share=over_languages(recall, status, seen=seen), num_facts=sum(outcome.num_facts for outcome in outcomes))
                for status in STATED
                if (outcomes := [outcome for outcome in recall if (outcome.status, outcome.seen) == (status, seen)])
            },
        )
        for seen in (True, False)
    ]
    for code in in_order({outcome.language for outcome in recall}):
        for seen in (True, False):
            outcomes = [outcome for outcome in recall if (outcome.language, outcome.seen) == (code, seen)]
            by_status: dict[Status, Recalled] = {
                outcome.status: Recalled(share=_share(outcome), num_facts=outcome.num_facts) for outcome in outcomes
            }
            rows.append(RecallRow(language=code, seen=seen, by_status=by_status))
    return rows


def over_languages(recall: Sequence[Recall], status: Status, *, seen: bool) -> Measured:
    """Return the mean over languages of the share recalled, with the least and the most; NaN without any language."""
    shares = [outcome.share for outcome in recall if (outcome.status, outcome.seen) == (status, seen)]
    return Measured(math.fsum(shares) / len(shares), min(shares), max(shares)) if shares else Measured(NAN)


def _share(outcome: Recall) -> Measured:
    """Return a share with its 95 % interval (Wilson's, since a bootstrap of 0 of 13 facts gives the interval 0 to 0)."""
    recalled, _ = _counts(outcome)
    interval = stats.binomtest(recalled, outcome.num_facts).proportion_ci(CONFIDENCE, "wilson")
    return Measured(outcome.share, interval.low, interval.high)


def above_guessing(recall: Sequence[Recall], status: Status, *, seen: bool) -> tuple[list[str], int]:
    """Return the languages that recall facts of this status clearly more often than facts stated nowhere, and how many have both.

    Clearly: a one-sided Fisher's exact test at ``LEVEL``, in each language by itself.
    """
    counts = {(outcome.language, outcome.status): _counts(outcome) for outcome in recall if outcome.seen == seen}
    both = [code for code, other in counts if other == status and (code, "nowhere") in counts]
    tests: dict[str, Any] = {
        code: stats.fisher_exact([counts[code, status], counts[code, "nowhere"]], alternative="greater") for code in both
    }
    return in_order(code for code, test in tests.items() if test.pvalue < LEVEL), len(both)


def unlike(recall: Iterable[Recall]) -> list[Recall]:
    """Return the outcomes of those facts alone whose object other languages spell differently, without outcomes that have none."""
    return [
        msgspec.structs.replace(outcome, num_facts=outcome.num_unlike, share=outcome.share_unlike)
        for outcome in recall
        if outcome.num_unlike
    ]


def _counts(outcome: Recall) -> tuple[int, int]:
    """Return how many facts are recalled and how many are not."""
    recalled = round(outcome.share * outcome.num_facts)
    return recalled, outcome.num_facts - recalled


def metrics_tree(run: Pretrained, checkpoints: Sequence[CheckpointRecall]) -> dict[str, object]:
    """Return the few numbers of metrics.json: the last loss by language and in all, the last recall by language, status and wording."""
    recalled: dict[str, dict[str, dict[str, float]]] = {}
    for outcome in recall_rows(checkpoints[-1].recall):
        for status, measured in outcome.by_status.items():
            by_wording = recalled.setdefault(outcome.language or "mean", {}).setdefault(status, {})
            by_wording["seen" if outcome.seen else "unseen"] = round(measured.share.value, DECIMALS)
    losses = {loss.code: round(loss.last, DECIMALS) for loss in loss_rows(run, {})}
    return {"loss": {"all": round(or_nan(run.losses[-1].loss), DECIMALS), **losses}, "recall": recalled}


def in_order(codes: Iterable[str]) -> list[str]:
    """Return language codes, natural languages first, each part sorted."""
    return sorted(codes, key=lambda code: (code in PROGRAMMING, code))
