"""What each measure means, in the order in which tables show them."""

MEASURES = {
    "efficacy": "Share of facts whose new answer is likelier than the true one, asked as it was edited; log-probabilities are means "
    "per token, because true answers are often longer. CounterFact's ES, arXiv 2202.05262.",
    "efficacy_sum": "The same by the log-probability of whole answers, as CounterFact compares them. It favours short answers.",
    "reliability": "Share of the new answer's tokens that are the model's first choice while the right tokens before them are given "
    "(teacher forcing). The main measure of arXiv 2601.17397; an unedited model can score 20 to 40 % on it.",
    "exact": "Share of facts whose new answer the model says by itself: it decodes greedily, nothing is given away, and the answer must "
    "open its text. The strictest measure; arXiv 2502.11177 shows how much teacher forcing flatters.",
    "exact_forced": "Share of facts whose new answer is the first choice at each of its tokens, teacher forced.",
    "paraphrase": "Efficacy on other wordings of the question. CounterFact's PS.",
    "paraphrase_sum": "The same by whole answers.",
    "generality": "Reliability on other wordings of the question, as arXiv 2601.17397 has it.",
    "paraphrase_exact": "exact_forced on other wordings of the question.",
    "translated": "Efficacy on a wording rendered literally from English (Chinese only): what translationese costs, beside *paraphrase*.",
    "translated_exact": "exact_forced on that wording.",
    "alias": "Efficacy when the subject goes by another of its names.",
    "alias_exact": "exact_forced by another name.",
    "portability": "Efficacy one step further: asked for what follows from the fact (the province of the city), the consequence of the "
    "new answer is likelier than that of the true one.",
    "portability_tokens": "Reliability one step further.",
    "locality": "Share of neighbouring questions (other subjects, same relation; CLM-Bench: unrelated ones) whose true answer stays "
    "likelier than the edit's new one. CounterFact's NS. High is good; compare with its floor.",
    "locality_sum": "The same by whole answers.",
    "locality_tokens": "Share of the first-choice tokens along an unrelated true answer that the edit left as they were. The locality of "
    "arXiv 2601.17397; 1 on the unedited model by definition.",
    "near": "Share of questions about the same subject in another relation whose true answer stays likelier than the edit's new one.",
    "near_tokens": "locality_tokens of those questions.",
    "far": "The same for questions from another domain: subject and relation both differ.",
    "far_tokens": "locality_tokens of those questions.",
    "score": "Harmonic mean of efficacy, paraphrase and locality. CounterFact's S.",
}

OTHERS = {
    "floor": "The same measure on the unedited model, on the same questions. Only what stands above the floor was done by the edit.",
    "interval": "95 % percentile bootstrap over facts: how far the number would move if other facts of this kind had been drawn. "
    "It says nothing about other models, seeds or settings.",
    "net transfer": "Gain over the floor in the language that was not edited, divided by the gain over the floor in the edited one. "
    "0: the edit stays in its language. 1: it arrives whole. Negative: it pushes the other language away. Not defined where the edit "
    "gains nothing in its own language.",
    "control (of net transfer)": "The same ratio for neighbours: in the other language, how much likelier the edit's new answer became for "
    "*other* subjects of the relation. Net transfer means that the fact crossed only where it stands above this.",
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
