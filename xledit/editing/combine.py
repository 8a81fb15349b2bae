"""How an edit combines several languages: whose facts are solved together, on which model, with which second moment.

To add a way, add a row to ``WAYS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

# languages whose facts are solved in one system
Group = tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """One edit. The groups of a round are solved on the same model and their updates added; then comes the next round.

    ``own_statistics``: the second moment of a group's old keys is over its own languages' text, otherwise over all languages' text.
    ``keeps_off``: a group's update leaves the values of the keys that other groups have stored exactly as they are.
    """

    rounds: tuple[tuple[Group, ...], ...]
    own_statistics: bool = False
    keeps_off: bool = False

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that are edited."""
        return tuple(dict.fromkeys(code for groups in self.rounds for group in groups for code in group))


WAYS: dict[str, Callable[[Group], Combination]] = {
    # all languages' facts in one system, as CLM-Bench does (arXiv 2601.17397)
    "mixed": lambda languages: Combination(rounds=((languages,),)),
    # the sum of the edits of the single languages, each with its own second moment
    "sum": lambda languages: Combination(rounds=(tuple((code,) for code in languages),), own_statistics=True),
    # the same sum, with one second moment over all languages' text (arXiv 2605.13919)
    "shared_sum": lambda languages: Combination(rounds=(tuple((code,) for code in languages),)),
    # one language after the other; each leaves the values of the earlier ones' keys (LangEdit, arXiv 2506.10800)
    "langedit": lambda languages: Combination(rounds=tuple(((code,),) for code in languages), keeps_off=True),
}


def combination(edit: str, languages: tuple[str, ...]) -> Combination:
    """Return the edit called ``edit``: one language alone, or one of ``WAYS`` for all. Raises ValueError that lists the names."""
    if edit in languages:
        return Combination(rounds=(((edit,),),))
    if edit not in WAYS:
        raise ValueError(f"grid.edits: {edit!r} is none of {', '.join((*languages, *WAYS))}")
    return WAYS[edit](languages)
