"""The answer in words, made from the numbers: a sentence claims a difference only where the interval shows one."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import Likeness, UpdateGeometry, VectorGeometry
from xledit.languages import LANGUAGES
from xledit.report.common.numbers import Measured, number, plural
from xledit.report.editing.runs import perplexity_ratios
from xledit.report.editing.tables import above_null, measured, over_layers

Verdict = Literal["undefined", "no interval", "not told from zero", "crosses", "arrives whole", "pushes away"]

VERDICTS: dict[Verdict, str] = {
    "undefined": "the edit gains nothing in its own language, so there is nothing to transfer",
    "no interval": "too few facts for an interval",
    "not told from zero": "no transfer that the interval can tell from zero",
    "crosses": "part of the edit crosses: the interval lies above zero and below one",
    "arrives whole": "the edit crosses, and the interval does not exclude that it arrives whole",
    "pushes away": "the edit pushes the other language away from the new answer: the interval lies below zero",
}
SHORT: dict[Verdict, str] = {
    "undefined": "is not defined (nothing gained in the edited language)",
    "no interval": "has no interval (too few facts)",
    "not told from zero": "cannot be told from zero",
    "crosses": "lies above zero and below one",
    "arrives whole": "lies above zero and reaches one",
    "pushes away": "lies below zero",
}
LABELS = {"order": "the subject's place in the prompt", "split": "the benchmark's part"}
WHAT = {"keys": "Keys", "deltas": "Value changes"}


def verdict(transfer: Measured) -> Verdict:
    """Return what the 95 % interval of a net transfer shows."""
    if math.isnan(transfer.value):
        return "undefined"
    if math.isnan(transfer.low) or math.isnan(transfer.high):
        return "no interval"
    if transfer.low > 0:
        return "crosses" if transfer.high < 1 else "arrives whole"
    return "pushes away" if transfer.high < 0 else "not told from zero"


def overall(cells: Sequence[CellSummary]) -> list[str]:
    """Return one sentence per measure: of how many edits the net transfer can be told from zero."""
    sentences = []
    for name, what in shown_in("net_answer").items():
        verdicts = [verdict(measured(metrics.get(name))) for cell in cells for metrics in cell.transfer.values()]
        if verdicts:
            counts = Counter(verdicts)
            parts = ", ".join(f"in {counts[kind]} it {SHORT[kind]}" for kind in VERDICTS if counts[kind])
            sentences.append(
                f"Net transfer of the {what}, over {plural(len(verdicts), 'pair')} of edited model and other language: {parts}."
            )
    return sentences


def transfer(cells: Sequence[CellSummary]) -> list[str]:
    """Return sentences about the cells of one method: each single-language edit, then those in several languages."""
    alone = {cell.edit: cell for cell in cells if len(cell.edit_languages) == 1}
    sentences = [sentence for cell in alone.values() for sentence in _alone(cell)]
    sentences += [_apart(label, alone.values()) for label in dict.fromkeys(group.label for cell in alone.values() for group in cell.groups)]
    sentences += [_together(cell, alone) for cell in cells if len(cell.edit_languages) > 1]
    return [_collapse(cell) for cell in cells if cell.checks and cell.checks[-1].collapsed] + sentences + _text(cells)


def _collapse(cell: CellSummary) -> str:
    return (
        f"The model edited in {name(cell.edit)} has collapsed after {plural(cell.checks[-1].num_facts, 'fact')}: "
        "it no longer reads plain text, and what it answers says nothing about transfer."
    )


def _text(cells: Sequence[CellSummary]) -> list[str]:
    """Return a sentence on held-out text, if the models were watched."""
    parts = [
        f"{name(cell.edit)}: {', '.join(f'{name(code)} × {number(ratio)}' for code, ratio in perplexity_ratios(cell.checks).items())}"
        for cell in cells
        if cell.checks
    ]
    return [f"Perplexity of held-out text, relative to the unedited model's, edited in {'; '.join(parts)}."] if parts else []


def _apart(label: str, cells: Iterable[CellSummary]) -> str:
    """Return a sentence on the net transfer of preference for facts of one label apart."""
    parts = [
        f"{group.value} ({group.num_facts} facts), {name(cell.edit)} to {name(other)}: {_with_interval(transfer)}, "
        f"which {SHORT[verdict(transfer)]}"
        for cell in cells
        for group in cell.groups
        if group.label == label
        for other, metrics in group.transfer.items()
        for transfer in [measured(metrics.get("efficacy"))]
    ]
    return f"Net transfer of preference by {LABELS.get(label, label)}: {'; '.join(parts)}."


def _alone(cell: CellSummary) -> list[str]:
    """Return two sentences per other language (preference, free answer), and one on locality."""
    (own,) = cell.edit_languages
    sentences = []
    for other, net in cell.transfer.items():
        efficacy, exact = measured(net.get("efficacy")), measured(net.get("exact"))
        sentences += [
            f"Edited in {name(own)}: asked in {name(own)}, the share of facts whose new answer is preferred "
            f"{_moves(cell, own, 'efficacy')}; asked in {name(other)} it {_moves(cell, other, 'efficacy')}. "
            f"Net transfer {_with_interval(efficacy)}: {VERDICTS[verdict(efficacy)]}. "
            f"The same ratio for other subjects of the relations, the control: {_with_interval(measured(net.get('control')))}.",
            f"Edited in {name(own)}, said freely and word for word: {name(own)} {_from_to(cell, own, 'exact')}, {name(other)} "
            f"{_from_to(cell, other, 'exact')}. Net transfer {_with_interval(exact)}: {VERDICTS[verdict(exact)]}.",
        ]
    kept = ", ".join(f"{name(code)} {_from_to(cell, code, 'locality')}" for code in (own, *cell.transfer))
    return [*sentences, f"Edited in {name(own)}, questions about other subjects whose true answer stays ahead: {kept}."]


def _together(cell: CellSummary, alone: dict[str, CellSummary]) -> str:
    """Return a sentence on an edit in several languages, beside each language's own edit."""
    parts = []
    for code in cell.edit_languages:
        beside = f" (alone: {_after(alone[code], code, 'efficacy')})" if code in alone else ""
        parts.append(f"in {name(code)} {_moves(cell, code, 'efficacy')}{beside}")
    free = ", ".join(f"{name(code)} {_from_to(cell, code, 'exact')}" for code in cell.edit_languages)
    kept = ", ".join(f"{name(code)} {_from_to(cell, code, 'locality')}" for code in cell.edit_languages)
    return (
        f"Edited in all languages at once ({cell.edit}): the share of facts whose new answer is preferred, {'; '.join(parts)}. "
        f"Said freely: {free}. Locality: {kept}."
    )


def vectors(geometry: Sequence[VectorGeometry], what: str) -> list[str]:
    """Return sentences about keys or value changes, averaged over layers, one per pair of languages."""
    layers = [row for row in geometry if row.what == what]
    worded = {code: fmean([row.reworded[code].centred_same for row in layers]) for code in layers[0].reworded} if layers else {}
    ceiling = "; reworded within a language it is " * bool(worded) + ", ".join(
        f"{number(value)} ({name(code)})" for code, value in worded.items()
    )
    sentences = []
    for pair in layers[0].across if layers else ():
        rows = [row.across[pair] for row in layers]
        same, different, spread = (
            number(fmean([getattr(row, field) for row in rows]), 3)
            for field in ("centred_same", "centred_different", "centred_different_sd")
        )
        a, b = (name(code) for code in pair.split("-"))
        sentences.append(
            f"{WHAT.get(what, what)}: the centred cosine of the same fact in {a} and {b} is {same} (mean of "
            f"{plural(len(rows), 'layer')}), that of different facts {different} with a standard deviation of {spread}: "
            f"{_above([above_null(row) for row in rows])}{ceiling}. {_strength(rows)} A fact's nearest neighbour in the other language is "
            f"the fact itself in {fmean([row.retrieval for row in rows]):.0%} of cases; chance is {rows[0].chance:.1%}."
        )
    return sentences


def _above(heights: Sequence[float]) -> str:
    mean = fmean(heights)
    spread = f" (by layer {min(heights):.1f} to {max(heights):.1f})" if len(heights) > 1 else ""
    return f"{abs(mean):.1f} null standard deviations {'above' if mean >= 0 else 'below'} the null{spread}"


def _strength(rows: Sequence[Likeness]) -> str:
    """Return what the distance from the null means: for the mean (standard errors) and for a single fact (the null's spread)."""
    clear = sum(row.centred_same - row.centred_different > 2 * row.centred_same_error for row in rows)
    if clear == 0:
        return "In no layer is this more than two standard errors above the null: the languages share nothing here that the mean can show."
    where = "In every layer" if clear == len(rows) else f"In {clear} of {plural(len(rows), 'layer')}"
    height = fmean([above_null(row) for row in rows])
    how_many = "few" if height >= 2 else "some" if height >= 1 else "many"
    return (
        f"{where} the mean stands more than two standard errors above the null; {how_many} pairs of different facts are as close as that."
    )


def updates(geometry: Sequence[UpdateGeometry], languages: Sequence[str]) -> list[str]:
    """Return one sentence per measure and pair of languages about the updates of one method, averaged over layers."""
    return [sentence for a, b in itertools.combinations(languages, 2) for sentence in _updates(geometry, a, b) if sentence]


def _updates(geometry: Sequence[UpdateGeometry], a: str, b: str) -> list[str]:
    run, same, different = f"run: {a} and {b}, same facts", f"half: {a} and {b}, same facts", f"half: {a} and {b}, different facts"
    within = {code: f"half: {code} and {code}, different facts" for code in (a, b)}
    reworded = {code: f"half: {code} and {code}, same facts in other words" for code in (a, b)}
    if not over_layers(geometry, same, "cosine"):
        return []

    def at(pair: str, field: str, decimals: int) -> str:
        return number(fmean(over_layers(geometry, pair, field)), decimals)

    def by_language(pairs: dict[str, str], field: str, decimals: int) -> str:
        return ", ".join(f"{name(code)} {at(pair, field, decimals)}" for code, pair in pairs.items() if over_layers(geometry, pair, field))

    def beside_nulls(field: str, decimals: int) -> str:
        this_run = f"{at(run, field, decimals)} in this run; " if over_layers(geometry, run, field) else ""
        words = by_language(reworded, field, decimals)
        return (
            f"{this_run}with half of the facts {at(same, field, decimals)} for the same facts and {at(different, field, decimals)} for "
            f"different ones; within one language, for different facts, {by_language(within, field, decimals)}"
            + (f" and for the same facts in other words {words}" if words else "")
        )

    higher = sum(x > y for x, y in zip(over_layers(geometry, same, "cosine"), over_layers(geometry, different, "cosine"), strict=True))
    share, chance = fmean(over_layers(geometry, same, "neurons")), fmean([row.chance_neurons for row in geometry])
    key_angle, value_angle = fmean([row.random_key_angle for row in geometry]), fmean([row.random_value_angle for row in geometry])
    error = fmean(over_layers(geometry, same, "additivity_error"))
    own_error = max(fmean(over_layers(geometry, pair, "additivity_error")) for pair in within.values())
    meaning = (
        "more than two halves of different facts in one language do: adding a language costs more than adding facts"
        if error > own_error
        else "no more than two halves of different facts in one language do: this is what the closed form gives any two sets of facts"
    )
    return [
        f"Cosine of the {name(a)} and the {name(b)} update: {beside_nulls('cosine', 3)}. The same facts are closer than different ones in "
        f"{higher} of {plural(len(geometry), 'layer')}.",
        f"Overlap of the 5 % of input neurons that each changes most: {beside_nulls('neurons', 3)}. Chance is {chance:.3f}; with half of "
        f"the facts the languages overlap {share / chance:.1f} times as much.",
        f"Mean principal angle on the key side, in degrees: {beside_nulls('key_angle_mean', 0)}. Random directions: {key_angle:.0f}.",
        f"Mean principal angle on the value side, in degrees: {beside_nulls('value_angle_mean', 0)}. Random directions: {value_angle:.0f}.",
        f"Additivity error: {beside_nulls('additivity_error', 3)}. With half of the facts, the update for both languages differs from the "
        f"sum of the two {meaning}.",
    ]


def name(code: str) -> str:
    """Return a language's English name, or the code itself where it is none."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def _at(cell: CellSummary, code: str, metric: str) -> tuple[float, float]:
    share = measured(cell.metrics[code][metric], cell.floor[code][metric])
    return share.floor, share.value


def _after(cell: CellSummary, code: str, metric: str) -> str:
    return f"{_at(cell, code, metric)[1]:.2f}"


def _from_to(cell: CellSummary, code: str, metric: str) -> str:
    before, after = _at(cell, code, metric)
    return f"from {before:.2f} to {after:.2f}"


def _moves(cell: CellSummary, code: str, metric: str) -> str:
    before, after = (round(value, 2) for value in _at(cell, code, metric))
    if before == after:
        return f"stays at {after:.2f}"
    return f"{'rises' if after > before else 'falls'} from {before:.2f} to {after:.2f}"


def _with_interval(net: Measured) -> str:
    if math.isnan(net.value):
        return "is not defined"
    if math.isnan(net.low) or math.isnan(net.high):
        return number(net.value)
    return f"{number(net.value)} (95 % interval {number(net.low)} to {number(net.high)})"
