"""What a model is asked about the world: its stage writes such sentences, and whoever asks a model reads them."""

import msgspec

from xledit.training.results import Wording


class FactProbe(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence that states a fact in one language; ``text[start:end]`` is the object.

    ``told``: ``everywhere``, ``nowhere``, or the code of the one language that tells the fact. ``wording``: ``told`` is the very sentence
    that the language's corpus has, ``known`` a frame of its corpus that never told this fact, ``unseen`` a frame that its corpus does not
    have, of words that it has. ``names_alike``: the asked language spells the person as the one that tells the fact does (of the others:
    as all do). ``object_alike``: a language that tells the fact, but for the asked one, spells the object alike, so that it may cross by
    spelling.
    """

    fact_id: str
    relation: str
    language: str
    told: str
    wording: Wording
    names_alike: bool
    object_alike: bool
    text: str
    start: int
    end: int
