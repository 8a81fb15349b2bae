"""The results of the geometry of edits, for the page: plain structs, no torch."""

import msgspec


class Likeness(msgspec.Struct, frozen=True, kw_only=True):
    """Two sets of vectors, fact by fact.

    ``same`` is the mean cosine of a fact's two vectors and ``same_error`` its standard error over facts;
    ``different`` and ``different_sd`` are mean and spread over pairs of different facts, the null. ``centred`` means
    each set's own mean was taken off first, so that what all vectors of a language share does not count.
    ``retrieval`` is how often a fact's nearest neighbour (centred cosine) in the other set is itself, averaged over
    both directions; ``chance`` is what guessing would give.
    """

    num_facts: int
    same: float
    same_error: float
    different: float
    different_sd: float
    centred_same: float
    centred_same_error: float
    centred_different: float
    centred_different_sd: float
    retrieval: float
    chance: float


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Cosines between vectors of different facts in one set, as they are and centred: mean and standard deviation."""

    mean: float
    sd: float
    centred_mean: float
    centred_sd: float


class VectorGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, one object (``keys`` or ``deltas``, v* minus v).

    ``across`` compares the same facts in two languages ("zh-en"). Its nulls: its own different facts, ``reworded`` (the
    same facts in other words within a language), ``within`` (different facts within a language), and ``random``, the
    spread of the cosine of random vectors.
    """

    layer: int
    what: str
    across: dict[str, Likeness]
    reworded: dict[str, Likeness]
    within: dict[str, Spread]
    random: float


class Alikeness(msgspec.Struct, frozen=True, kw_only=True):
    """Two updates of one memory.

    ``cosine`` is of the flattened matrices. ``neurons`` is the Jaccard overlap of the 5 % of the memory's input neurons
    that each changes most. Angles (degrees) are principal angles between the leading ``rank`` singular directions, on
    the key side (what the update reads) and on the value side (what it writes); 0 is the same direction, 90 orthogonal.
    ``additivity_error`` is ``|both - (left + right)| / |both|`` and ``additivity_cosine`` the cosine of the two, where
    ``both`` was solved for all facts at once; None where nothing was.
    """

    cosine: float
    neurons: float
    rank: int
    key_angle_mean: float
    key_angle_min: float
    value_angle_mean: float
    value_angle_min: float
    norm_left: float
    norm_right: float
    additivity_error: float | None
    additivity_cosine: float | None


class UpdateGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of one method. ``pairs`` are by the name of the two updates compared.

    The nulls: mean principal angles (degrees) of random directions, and the neuron overlap of two random sets.
    """

    layer: int
    method: str
    pairs: dict[str, Alikeness]
    random_key_angle: float
    random_value_angle: float
    chance_neurons: float
