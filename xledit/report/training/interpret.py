"""What the analyses of states and neurons found, in words and rows: each figure of the paper beside its null."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from xledit.interpret.results import Depth, Importance, Neurons, Pairs, Pooling, Representations
from xledit.report.common.numbers import or_nan
from xledit.training.catalog import row

# the four figures of importance: field, and what it is divided by
NORMALISED = {"raw": "as in the paper", "per_unit": "per unit", "per_nat": "per unit and nat of loss", "per_token": "per unit and token"}
# least distance from its null at which a sentence calls a share higher
CLEARLY = 0.05


class Analysed(msgspec.Struct, frozen=True, kw_only=True):
    """One model's analyses and its title on the page."""

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
    """A language: mean tokens per sentence, importance of all units by normalisation, and its own neurons (LAPE).

    ``own``, ``others`` and ``random`` are rises of the loss in nats per token: of this language and, as a mean, of the other ones with
    its own neurons switched off, and of this one with as many other neurons off.
    """

    language: str
    tokens: float
    loss: float
    importance: dict[str, float]
    num_neurons: int
    own: float
    others: float
    random: float


def depths(states: Representations, pooling: Pooling = "last") -> list[Depth]:
    """Return the depths of one pooling, from the embeddings up."""
    return [depth for depth in states.depths if depth.pooling == pooling]


def about_states(states: Representations) -> list[str]:
    """Return four sentences: the paper's measure beside its null, retrieval within patterns, retrieval among all, the linear probe."""
    inner = depths(states)[1:-1] or depths(states)
    means = [or_nan(depth.means.mean) for depth in inner]
    gaps = [or_nan(depth.means.mean) - or_nan(depth.means_unrelated.mean) for depth in inner]
    best = max((depth for depth in states.depths), key=lambda depth: or_nan(depth.retrieval_within.mean))
    first, last = inner[0], depths(states)[-1]
    languages = [depth.language for depth in inner]
    return [
        f"The paper's measure, cosine of two languages' mean states, is {min(means):.3f} to {max(means):.3f} between the layers. "
        f"Means over sentences that say something else give the same: the largest difference is {max(map(abs, gaps)):.3f}. "
        "So it does not tell whether translations are alike.",
        "A sentence's translation is its nearest neighbour among sentences of the same pattern in "
        f"{or_nan(best.retrieval_within.mean):.0%} of cases at best (guessing: {states.chance_within:.0%}), after layer {best.depth} "
        f"({_pooled(best)}); from "
        f"{or_nan(best.retrieval_within.low):.0%} to {or_nan(best.retrieval_within.high):.0%} by pair of languages.",
        f"Of the states of last tokens after the first layer and behind the last, {or_nan(first.retrieval.mean):.0%} and "
        f"{or_nan(last.retrieval.mean):.0%} find their translation among all sentences (guessing: {states.chance:.0%}).",
        f"A linear probe names the language of {min(languages):.0%} to {max(languages):.0%} of sentences between the layers (guessing: "
        f"{1 / len(states.languages):.0%}): no layer is free of language.",
    ]


def about_unification(states: Representations) -> list[str]:
    """Return a sentence for each kind of names: how near a fact in two languages comes to one representation, and what a value gives."""
    sentences = []
    for names_alike in (True, False):
        rows = [row for row in states.unification if row.names_alike == names_alike]
        if not rows:
            continue
        names = "spelt alike" if names_alike else "in own letters"
        if all(row.score.mean is None for row in rows):
            nearest = max(or_nan(row.reworded.mean) - or_nan(row.different.mean) for row in rows)
            sentences.append(
                f"Of persons whose names are {names}, a fact is no more like itself in other words of one language than other facts are "
                f"(cosines differ by {nearest:.2f} at most): the model has nothing of these facts that languages could share."
            )
            continue
        best = max((row for row in rows if row.score.mean is not None), key=lambda row: or_nan(row.score.mean))
        score, low, high = range_of(best.score)
        sentences.append(
            f"Where the object is about to be said, a fact about a person whose name is {names} lies {score:.2f} of the way from another "
            "fact of its relation (0) to the same fact in other words of one language (1), at its best after layer "
            f"{best.depth}; {low:.2f} to {high:.2f} by pair of languages, {best.num_facts} facts. Cosines there: "
            f"{or_nan(best.same.mean):.2f} with itself in the other language, {or_nan(best.same_value.mean):.2f} with other persons of "
            f"the same value, {or_nan(best.different.mean):.2f} with those of another one."
        )
    return sentences


def about_lens(states: Representations) -> str:
    """Return a sentence on whether another language's word for the answer is likelier in an inner layer than its null."""
    inner = states.lens[1:-1]
    candidates = [
        (chance - reading.others_null[code], reading.depth, code, chance, reading.others_null[code])
        for reading in inner
        for code, chance in reading.others.items()
    ]
    if not candidates:
        return "No inner layer was asked."
    gain, depth, code, chance, null = max(candidates)
    best = max(inner, key=lambda reading: reading.asked - reading.asked_null)
    sentence = (
        f"Read off inner layers, the answer as the asked language spells it has a probability of {best.asked:.3f} at most (after layer "
        f"{best.depth}; another fact's object: {best.asked_null:.3f}). Of the other languages, {row(code).name} is nearest: "
        f"{chance:.4f} after layer {depth}, another fact's object in it {null:.4f}."
    )
    if gain > CLEARLY * max(best.asked, CLEARLY) and chance > 1.5 * null:
        return f"{sentence} So the answer passes through {row(code).name}."
    return f"{sentence} So no other language's word is on the way."


def component_rows(neurons: Neurons) -> list[ComponentRow]:
    """Return the kinds of components, those that matter most in the paper's figure first."""
    checked = {ablation.component: ablation for ablation in neurons.ablation}
    names = list(dict.fromkeys(part.component for part in neurons.importance))
    raws = {name: _sum(neurons.importance, name, "raw", len(neurons.languages)) for name in names}
    units = {name: statistics.mean(part.per_unit for part in neurons.importance if part.component == name) for name in names}
    rows = [
        ComponentRow(
            component=name,
            width=next(part.width for part in neurons.importance if part.component == name),
            raw=raws[name],
            share=raws[name] / sum(raws.values()),
            per_unit=units[name],
            per_unit_share=units[name] / sum(units.values()),
            rank_correlation=or_nan(checked[name].rank_correlation) if name in checked else math.nan,
            ratio=or_nan(checked[name].ratio) if name in checked else math.nan,
        )
        for name in names
    ]
    return sorted(rows, key=lambda component: -component.raw)


def layer_raws(neurons: Neurons) -> list[float]:
    """Return the paper's figure by layer: the sum over a layer's components, as a mean over languages."""
    layers = sorted({part.layer for part in neurons.importance})
    return [sum(part.raw for part in neurons.importance if part.layer == layer) / len(neurons.languages) for layer in layers]


def language_rows(neurons: Neurons) -> list[LanguageRow]:
    """Return one row per language, in the order of the run."""
    specific = {own.language: own for own in neurons.specific}
    rows = []
    for code in neurons.languages:
        mine, own = [part for part in neurons.importance if part.language == code], specific[code]
        rows.append(
            LanguageRow(
                language=code,
                tokens=neurons.tokens_per_sentence[code],
                loss=neurons.loss[code],
                importance={name: sum(getattr(part, name) for part in mine) for name in NORMALISED},
                num_neurons=sum(own.num_neurons.values()),
                own=own.rise[code],
                others=statistics.mean(rise for other, rise in own.rise.items() if other != code),
                random=own.random_rise[code],
            )
        )
    return rows


def about_neurons(neurons: Neurons) -> list[str]:
    """Return sentences: the check of the estimate, the components and layers that matter most, how languages differ, own neurons."""
    components, languages, layers = component_rows(neurons), language_rows(neurons), layer_raws(neurons)
    correlations = [component.rank_correlation for component in components if not math.isnan(component.rank_correlation)]
    top, per_unit = components[0], max(components, key=lambda component: component.per_unit)
    ranked = {name: sorted(languages, key=lambda language: -language.importance[name]) for name in NORMALISED}
    least = ", ".join(f"{row(ranked[name][-1].language).name} ({NORMALISED[name]})" for name in NORMALISED)
    needed = [
        language
        for language in languages
        if language.num_neurons and language.own > 2 * max(language.others, language.random, 0.0) and language.own > 0.005
    ]
    return [
        f"Switching units off for real: the estimate's rank correlation with what was measured is {min(correlations):.2f} to "
        f"{max(correlations):.2f} by kind of component."
        if correlations
        else "No unit's measured effect varied, so the estimate is unchecked.",
        f"By the paper's figure the most important component is {top.component} ({top.share:.0%} of all) and layer "
        f"{layers.index(max(layers))} matters most, layer {layers.index(min(layers))} least; per unit it is {per_unit.component}, which "
        f"has {per_unit.width:,} units.",
        f"Which language's neurons matter least depends on what the figure is divided by: {least}.",
        f"The most important neurons of two languages overlap by {or_nan(neurons.overlap.mean):.2f} ({or_nan(neurons.overlap.low):.2f} to "
        f"{or_nan(neurons.overlap.high):.2f}), of two halves of one language by {or_nan(neurons.overlap_halves.mean):.2f}, "
        f"of random choices by {neurons.overlap_chance:.2f}.",
        f"Own neurons (LAPE): in {len(needed)} of {len(languages)} languages switching them off costs the language more than twice what it "
        "costs the others, and than as many other neurons of the same layers cost it"
        + (f": {', '.join(row(language.language).name for language in needed)}." if needed else "."),
    ]


def range_of(pairs: Pairs) -> tuple[float, float, float]:
    """Return mean, lowest and highest as numbers."""
    return or_nan(pairs.mean), or_nan(pairs.low), or_nan(pairs.high)


def metrics_tree(analysed: Sequence[Analysed]) -> dict[str, object]:
    """Return the few numbers of metrics.json by model."""
    return {
        model.title: {
            "best_retrieval_within_pattern": round(max(or_nan(depth.retrieval_within.mean) for depth in model.states.depths), 4),
            "unification_names_alike": _best_score(model.states, names_alike=True),
            "unification_own_letters": _best_score(model.states, names_alike=False),
            "neuron_overlap": round(or_nan(model.neurons.overlap.mean), 4),
            "neuron_overlap_halves": round(or_nan(model.neurons.overlap_halves.mean), 4),
        }
        for model in analysed
    }


def _best_score(states: Representations, *, names_alike: bool) -> float | None:
    scores = [row.score.mean for row in states.unification if row.names_alike == names_alike and row.score.mean is not None]
    return round(max(scores), 4) if scores else None


def _sum(importance: Sequence[Importance], component: str, name: str, num_languages: int) -> float:
    return sum(getattr(part, name) for part in importance if part.component == component) / num_languages


def _pooled(depth: Depth) -> str:
    return "state of the last token" if depth.pooling == "last" else "mean over tokens"
