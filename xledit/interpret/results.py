"""The results of the analyses, in reports/tranyu: plain structs, no torch."""

from typing import Literal

import msgspec

# a sentence's vector: the state of its last token, as in FuxiTranyu (arXiv 2408.06273, section 6.2), or the mean over its tokens
Pooling = Literal["last", "mean"]


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """A number for each pair of languages: the mean over the pairs, the lowest and the highest pair. None where no pair has one."""

    mean: float | None
    low: float | None
    high: float | None


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How alike languages are after ``depth`` layers (0: embeddings; after the last layer: after the final norm).

    ``means``: cosine of two languages' mean vectors, the paper's measure; ``means_unrelated``: the same of means over *different*
    sentences, its null. ``same`` and ``different``: mean cosine of a sentence with its translation and with other sentences;
    ``centred_same`` and ``centred_different``: each language's mean subtracted first. ``retrieval``: the share of sentences whose nearest
    neighbour in the other language is their translation; ``retrieval_within``: among sentences of the same group (pattern) only. ``mexa``:
    the share that is nearer to its translation than either of the two is to any other, not centred (arXiv 2410.05873). ``cka``:
    linear CKA (arXiv 1905.00414); ``cka_shuffled``: with the sentences of one language shuffled, because few sentences in many dimensions
    are alike by chance. ``language``: accuracy of a linear probe for the language, on sentences whose translations it was not trained on;
    ``language_shuffled``: with shuffled languages in training.
    """

    depth: int
    pooling: Pooling
    means: Pairs
    means_unrelated: Pairs
    same: Pairs
    different: Pairs
    centred_same: Pairs
    centred_different: Pairs
    retrieval: Pairs
    retrieval_within: Pairs
    mexa: Pairs
    cka: Pairs
    cka_shuffled: Pairs
    language: float
    language_shuffled: float


class LensDepth(msgspec.Struct, frozen=True, kw_only=True):
    """What the head predicts from the states after ``depth`` layers where a fact's object begins (logit lens, arXiv 2402.10588).

    Mean probability of the first token of the object: in the asked language's spelling (``asked``), and by language in the spelling of each
    of the others (``others``), where that is another token. ``asked_null`` and ``others_null``: of the object of another fact of the same
    relation, which is not an answer.
    """

    depth: int
    asked: float
    asked_null: float
    others: dict[str, float]
    others_null: dict[str, float]


class Unification(msgspec.Struct, frozen=True, kw_only=True):
    """How alike the states that predict a fact's object are after ``depth`` layers, for ``num_facts`` facts told in all languages.

    Mean cosines, after each language's mean over a relation was subtracted. Across two languages: of the same fact (``same``), of facts of
    other persons with the same value (``same_value``) and with another one (``different``). ``reworded``: of the same fact in two wordings
    of one language. ``score``: ``same`` on a scale where ``different`` is 0 and ``reworded`` 1; above 1, translations are more alike than
    rewordings; None where there is no such scale, because rewordings are hardly more alike than other facts.
    """

    depth: int
    names_alike: bool
    num_facts: int
    same: Pairs
    same_value: Pairs
    different: Pairs
    reworded: Pairs
    score: Pairs


class Representations(msgspec.Struct, frozen=True, kw_only=True):
    """The states of one model for parallel sentences; ``chance`` is the retrieval that guessing gives, ``chance_within`` within groups."""

    name: str
    languages: tuple[str, ...]
    num_sentences: int
    chance: float
    chance_within: float
    depths: list[Depth]
    unification: list[Unification]
    num_prompts: int
    lens: list[LensDepth]


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """Importance |gradient x activation| of one component of one layer for one language (arXiv 2408.06273, section 6.1).

    ``raw``: by how much switching one unit off would change a sentence's loss (nats per token), to first order, as a mean over sentences
    and summed over the ``width`` units: the paper's number. ``per_unit``: divided by the width. ``per_nat``: ``per_unit``, with each
    sentence divided by its loss. ``per_token``: by how much switching a unit off at one token would change the loss summed over tokens
    (nats), as a mean over units and tokens.
    """

    layer: int
    component: str
    language: str
    width: int
    raw: float
    per_unit: float
    per_nat: float
    per_token: float


class Ablation(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of units that were really switched off: how far the first-order estimate can be trusted.

    ``rank_correlation`` (Spearman) and ``ratio`` (of the sums) of estimated and measured change, over ``num_units`` units.
    """

    component: str
    num_units: int
    rank_correlation: float | None
    ratio: float | None


class LanguageNeurons(msgspec.Struct, frozen=True, kw_only=True):
    """What switching off a language's own neurons does to the loss (nats per token) of each language.

    ``num_neurons`` by layer; ``rise`` by language read; ``random_rise``: the same for as many other neurons of the same layers.
    """

    language: str
    num_neurons: dict[str, int]
    rise: dict[str, float]
    random_rise: dict[str, float]


class Neurons(msgspec.Struct, frozen=True, kw_only=True):
    """The neurons of one model: importance, its check by ablation, language-specific neurons by LAPE (arXiv 2402.16438).

    ``overlap``: of each pair of languages, the share that their most important neurons have in common (Jaccard); ``overlap_chance``: what
    as many neurons drawn at random would have; ``overlap_halves``: what two halves of one language's sentences have.
    """

    name: str
    languages: tuple[str, ...]
    num_sentences: int
    tokens_per_sentence: dict[str, float]
    loss: dict[str, float]
    importance: list[Importance]
    ablation: list[Ablation]
    num_neurons: int
    specific: list[LanguageNeurons]
    overlap: Pairs
    overlap_halves: Pairs
    overlap_chance: float
