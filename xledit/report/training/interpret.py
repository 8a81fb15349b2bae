"""What the analyses of states and neurons found, in words and rows: each figure of the paper beside its null."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from xledit.interpret.results import Depth, Importance, Neurons, Pairs, Pooling, Representations
from xledit.report.common.numbers import known
from xledit.training.catalog import row

# the four figures of importance: what is shown, and what it is divided by
NORMALISED = {"raw": "as in the paper", "per_unit": "per unit", "per_nat": "per unit and nat of loss", "per_token": "per unit and token"}
# how far above guessing, or above its null, a share must lie to be told from it, in words
CLEARLY = 0.05


class Analysed(msgspec.Struct, frozen=True, kw_only=True):
    """One model's analyses, under the name that the page gives it."""

    title: str
    states: Representations
    neurons: Neurons


class ComponentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of component over all layers: means over languages; ``raw`` and ``share`` are sums over the layers."""

    component: str
    width: int
    raw: float
    share: float
    per_unit: float
    per_unit_share: float
    rank_correlation: float
    ratio: float


class LanguageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A language: tokens a sentence has, importance of all units by normalisation, its own neurons and what their loss costs whom."""

    language: str
    tokens: float
    loss: float
    importance: dict[str, float]
    num_neurons: int
    own: float
    others: float
    random: float


def depths(found: Representations, pooling: Pooling = "last") -> list[Depth]:
    """Return the rows of one pooling, from the embeddings up."""
    return [each for each in found.depths if each.pooling == pooling]


def about_states(found: Representations) -> list[str]:
    """Return what the paper's measure says, what its null says, and what controlled measures say."""
    inner = depths(found)[1:-1] or depths(found)
    means = [known(each.means.mean) for each in inner]
    gaps = [known(each.means.mean) - known(each.means_unrelated.mean) for each in inner]
    best = max((each for each in found.depths), key=lambda each: known(each.retrieval_within.mean))
    first, last = depths(found)[1], depths(found)[-1]
    languages = [each.language for each in inner]
    return [
        f"The paper's measure, cosine of two languages' mean states, is {min(means):.3f} to {max(means):.3f} between the layers. "
        f"Means over sentences that say something else give the same: the largest difference is {max(map(abs, gaps)):.3f}. "
        "So it does not tell whether translations are alike.",
        "A sentence's translation is its nearest neighbour among sentences of the same pattern in "
        f"{known(best.retrieval_within.mean):.0%} of cases at best (guessing: {found.chance_within:.0%}), after layer {best.depth} "
        f"({_pooled(best)}); from "
        f"{known(best.retrieval_within.low):.0%} to {known(best.retrieval_within.high):.0%} by pair of languages.",
        f"Of the states of last tokens after the first layer and behind the last, {known(first.retrieval.mean):.0%} and "
        f"{known(last.retrieval.mean):.0%} find their translation among all sentences (guessing: {found.chance:.0%}).",
        f"A linear probe names the language of {min(languages):.0%} to {max(languages):.0%} of sentences between the layers (guessing: "
        f"{1 / len(found.languages):.0%}): no layer is free of language.",
    ]


def about_lens(found: Representations) -> str:
    """Return which other language's word an inner layer is most ready to say, if any."""
    inner = found.lens[1:-1]
    candidates = [
        (chance - each.others_null[code], each.depth, code, chance, each.others_null[code])
        for each in inner
        for code, chance in each.others.items()
    ]
    if not candidates:
        return "No inner layer was asked."
    gain, depth, code, chance, null = max(candidates)
    asked = max(inner, key=lambda each: each.asked - each.asked_null)
    told = (
        f"Read off inner layers, the answer as the asked language spells it has a probability of {asked.asked:.3f} at most (after layer "
        f"{asked.depth}; another fact's object: {asked.asked_null:.3f}). Of the other languages, {row(code).name} is nearest: "
        f"{chance:.4f} after layer {depth}, another fact's object in it {null:.4f}."
    )
    if gain > CLEARLY * max(asked.asked, CLEARLY) and chance > 1.5 * null:
        return f"{told} So the answer passes through {row(code).name}."
    return f"{told} So no other language's word is on the way."


def component_rows(found: Neurons) -> list[ComponentRow]:
    """Return the kinds of components, those that matter most in the paper's figure first."""
    checked = {each.component: each for each in found.ablation}
    names = list(dict.fromkeys(each.component for each in found.importance))
    raws = {name: _sum(found.importance, name, "raw", len(found.languages)) for name in names}
    units = {name: statistics.mean(each.per_unit for each in found.importance if each.component == name) for name in names}
    rows = [
        ComponentRow(
            component=name,
            width=next(each.width for each in found.importance if each.component == name),
            raw=raws[name],
            share=raws[name] / sum(raws.values()),
            per_unit=units[name],
            per_unit_share=units[name] / sum(units.values()),
            rank_correlation=known(checked[name].rank_correlation) if name in checked else math.nan,
            ratio=known(checked[name].ratio) if name in checked else math.nan,
        )
        for name in names
    ]
    return sorted(rows, key=lambda each: -each.raw)


def layer_raws(found: Neurons) -> list[float]:
    """Return the paper's figure by layer: the sum over a layer's components, as a mean over languages."""
    layers = sorted({each.layer for each in found.importance})
    return [sum(each.raw for each in found.importance if each.layer == layer) / len(found.languages) for layer in layers]


def language_rows(found: Neurons) -> list[LanguageRow]:
    """Return the languages in their order."""
    specific = {each.language: each for each in found.specific}
    rows = []
    for code in found.languages:
        mine, own = [each for each in found.importance if each.language == code], specific[code]
        rows.append(
            LanguageRow(
                language=code,
                tokens=found.tokens_per_sentence[code],
                loss=found.loss[code],
                importance={name: sum(getattr(each, name) for each in mine) for name in NORMALISED},
                num_neurons=sum(own.num_neurons.values()),
                own=own.rise[code],
                others=statistics.mean(rise for other, rise in own.rise.items() if other != code),
                random=own.random_rise[code],
            )
        )
    return rows


def about_neurons(found: Neurons) -> list[str]:
    """Return whether the estimate holds, which layers and components matter, how languages differ, and whether own neurons are needed."""
    components, languages, layers = component_rows(found), language_rows(found), layer_raws(found)
    correlations = [each.rank_correlation for each in components if not math.isnan(each.rank_correlation)]
    top, per_unit = components[0], max(components, key=lambda each: each.per_unit)
    ranked = {name: sorted(languages, key=lambda each: -each.importance[name]) for name in NORMALISED}
    least = ", ".join(f"{row(ranked[name][-1].language).name} ({NORMALISED[name]})" for name in NORMALISED)
    needed = [each for each in languages if each.num_neurons and each.own > 2 * max(each.others, each.random, 0.0) and each.own > 0.005]
    return [
        f"Switching units off for real: the estimate's rank correlation with what was measured is {min(correlations):.2f} to "
        f"{max(correlations):.2f} by kind of component."
        if correlations
        else "No unit's measured effect varied, so the estimate is unchecked.",
        f"By the paper's figure the most important component is {top.component} ({top.share:.0%} of all) and layer "
        f"{layers.index(max(layers))} matters most, layer {layers.index(min(layers))} least; per unit it is {per_unit.component}, which "
        f"has {per_unit.width:,} units.",
        f"Which language's neurons matter least depends on what the figure is divided by: {least}.",
        f"The most important neurons of two languages overlap by {known(found.overlap.mean):.2f} ({known(found.overlap.low):.2f} to "
        f"{known(found.overlap.high):.2f}), of two halves of one language by {known(found.overlap_halves.mean):.2f}, of random choices by "
        f"{found.overlap_chance:.2f}.",
        f"Own neurons (LAPE): in {len(needed)} of {len(languages)} languages switching them off costs the language more than twice what it "
        "costs the others, and than as many other neurons of the same layers cost it"
        + (f": {', '.join(row(each.language).name for each in needed)}." if needed else "."),
    ]


def range_of(pairs: Pairs) -> tuple[float, float, float]:
    """Return mean, lowest and highest as numbers."""
    return known(pairs.mean), known(pairs.low), known(pairs.high)


def metrics_tree(analysed: Sequence[Analysed]) -> dict[str, object]:
    """Return the few numbers of metrics.json by model."""
    return {
        each.title: {
            "best_retrieval_within_pattern": round(max(known(depth.retrieval_within.mean) for depth in each.states.depths), 4),
            "neuron_overlap": round(known(each.neurons.overlap.mean), 4),
            "neuron_overlap_halves": round(known(each.neurons.overlap_halves.mean), 4),
        }
        for each in analysed
    }


def _sum(importance: Sequence[Importance], component: str, name: str, num_languages: int) -> float:
    return sum(getattr(each, name) for each in importance if each.component == component) / num_languages


def _pooled(found: Depth) -> str:
    return "state of the last token" if found.pooling == "last" else "mean over tokens"
