"""What the stages conclude, as they write it to JSON and the report reads it: plain structs, no torch."""

from typing import Literal

import msgspec

Dtype = Literal["float32", "bfloat16", "float16"]


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ``model`` stage writes: the exact bytes behind a name.

    ``weights`` hashes all files that make the model. ``probed`` is the row of a family that has none in ``FAMILIES``, as
    ``model.family: auto`` found it: field of the row to module path.
    """

    name: str
    revision: str | None
    source: Literal["embedded", "gguf", "folder", "hub"]
    family: str
    dtype: Dtype
    num_layers: int
    d_model: int
    d_key: int
    vocabulary: int
    num_parameters: int
    norm_after_memory: bool
    weights: str
    probed: dict[str, str | None] | None = None


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What our own benchmark holds.

    ``domains`` counts facts by split, ``splits`` relations; ``china`` counts facts whose
    subject is specific to China; ``probes`` counts facts that have a kind of probe, by language; ``key_collisions`` counts facts that
    share their text up to the subject, by order and language; ``lengths`` are mean tokens; ``same_length`` is the share of
    new answers with as many tokens as the true one; ``checks`` are the counts that ``rows.CHECKS`` gives for any data set.
    """

    num_facts: int
    num_relations: int
    china: int
    domains: dict[str, dict[str, int]]
    splits: dict[str, int]
    relations: dict[str, dict[str, int]]
    probes: dict[str, dict[str, int]]
    key_collisions: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, float]]
    same_length: dict[str, float]
    checks: dict[str, dict[str, int]]


class BenchmarkAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What `make audit` writes: our benchmark's stock, how many rows break each rule, and CLM-Bench's counts by the same checks."""

    benchmark: Inventory
    findings: dict[str, int]
    clm_bench: dict[str, dict[str, int]]
    clm_bench_facts: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its 95 % interval; NaN where it is not defined, which JSON spells null and gives back as None."""

    value: float | None
    low: float | None
    high: float | None


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One probe before and after: untrusted text of data and model."""

    language: str
    prompt: str
    target_new: str
    target_true: str
    before: str
    after: str


class GroupSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that share a label: a few metrics and their floors by probe language, net transfer by other language."""

    label: str
    value: str
    num_facts: int
    metrics: dict[str, dict[str, Estimate]]
    floor: dict[str, dict[str, Estimate]]
    transfer: dict[str, dict[str, Estimate]]


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One look at a model in the middle of its edits.

    ``num_facts`` counts the facts written so far. ``fresh`` is the share of the newest batch that the model recalls, ``kept`` that of
    a sample of all earlier facts (None before there are any). ``text_nats`` is the mean negative log-probability of a token
    of held-out text (nats) by language. ``weight_norms`` is the Frobenius norm of a layer's memory over that of the unedited
    one, by layer: 1 is untouched, a model that is about to break grows. What is not finite is null in JSON and comes back
    as None. ``collapsed`` is what the function ``collapsed`` says of ``text_nats``.
    """

    num_facts: int
    fresh: float
    kept: float | None
    text_nats: dict[str, float | None]
    weight_norms: dict[str, float | None]
    collapsed: bool


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One edited model. ``metrics`` and ``floor`` are by probe language and metric; ``transfer`` by other language and metric.

    ``trans`` is the paper's measure (the smallest over the largest reliability). ``groups`` are facts that share a label,
    where there are several of that label. ``checks`` say how the model fared batch by batch; empty where no weight changed.
    """

    method: str
    edit: str
    edit_languages: tuple[str, ...]
    num_facts: int
    metrics: dict[str, dict[str, Estimate]]
    floor: dict[str, dict[str, Estimate]]
    transfer: dict[str, dict[str, Estimate]]
    trans: Estimate
    groups: tuple[GroupSummary, ...] = ()
    checks: tuple[Check, ...] = ()
    examples: tuple[Example, ...]


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
    ``both`` was solved for all facts at once.
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
    additivity_error: float
    additivity_cosine: float


class UpdateGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of one method. ``pairs`` are by what was compared; ``random_*`` and ``chance_neurons`` by nothing shared."""

    layer: int
    method: str
    pairs: dict[str, Alikeness]
    random_key_angle: float
    random_value_angle: float
    chance_neurons: float


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage took, with loading: seconds by the clock and of the processor."""

    stage: str
    wall_s: float
    cpu_s: float
