"""What each measure means: the meanings of the metrics in the order of their table, then other words of the page."""

from xledit.evaluation.metrics import METRICS, shown_in

NUMBERS = {
    "floor": "The same measure on the unedited model, on the same questions. Only what stands above the floor was done by the edit.",
    "interval": "95 % percentile bootstrap over facts: how far the number would move if other facts of this kind had been drawn. "
    "It says nothing about other models, seeds or settings.",
    "net transfer": "Gain over the floor in the language that was not edited, divided by the gain over the floor in the edited one. "
    "0: the edit stays in its language. 1: it arrives whole. Negative: it pushes the other language away. Not defined where the edit "
    "gains nothing in its own language.",
}

OTHERS = {
    "trans": "The cross-lingual measure of arXiv 2601.17397: the smaller of the languages' reliabilities over the larger. It knows neither "
    "which language was edited nor the floor, so a ruined model can score near 1; it stands here to set that paper's tables beside ours.",
    "perplexity": "How surprised the model is by a token of plain text that no edit is about (data/heldout), relative to "
    "the unedited model: × 1 is unchanged.",
    "collapsed": "In one of the languages that perplexity is more than ten times the unedited model's, or not finite (our rule; "
    "arXiv 2402.09656 takes perplexity as the sign without a threshold). What such a model answers says nothing about transfer.",
    "key, value, value change": "A memory maps a key (the activation at the subject's last token) to a value. The value change is v* minus "
    "the value now, where v* makes the fact true. arXiv 2210.07229 (MEMIT) and 2410.02355 (AlphaEdit) store value changes at keys.",
    "centred cosine": "Cosine after each language's mean vector was taken off: what all vectors of a language share does not count.",
    "null": "What the same figure is where nothing is shared that matters: different facts, or random directions. A figure without its "
    "null says nothing: two sets of English edits have a cosine near 0, too.",
    "null standard deviations": "Distance of the mean same-fact cosine from the mean of different facts, in standard deviations of the "
    "cosines of different facts.",
    "reworded": "The same facts in other words of the same language: how alike two vectors of one fact can be expected to be at all.",
    "retrieval": "How often a fact's nearest neighbour among the other language's vectors (centred cosine) is the same fact.",
    "neuron overlap": "Jaccard overlap of the 5 % of input neurons that each update changes most. Two random sets of that size overlap "
    "by 0.026, not by 0.",
    "principal angles": "Angles between the leading singular directions of two updates, 0° the same, 90° orthogonal, on the side that "
    "reads keys and on the side that writes values. Random directions are not at 90° exactly; their angle stands beside it.",
    "additivity": "Relative error and cosine of the update that was solved for both sets of facts together, against the sum of the two "
    "that were solved apart. Closed forms are close to additive for any two sets, so the null is two halves of different "
    "facts in one language.",
}


def measures() -> dict[str, str]:
    """Return what each metric means, by name."""
    return {name: METRICS[name].meaning for name in shown_in("every")}


def others() -> dict[str, str]:
    """Return meanings by word of the page that is no metric of its own; the metrics shown as net transfer only are among them."""
    of_transfer = {f"{name} (of net transfer)": row.meaning for name, row in METRICS.items() if "every" not in row.shown}
    return NUMBERS | of_transfer | OTHERS
