"""How an edit of several languages is made of its languages: what is solved together, from which model, against which statistics.

To add a way, add a row to ``WAYS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

# languages whose facts are solved in one system
Group = tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """One edit. The groups of a round are solved from the same model and their updates added; rounds follow one another.

    ``own_statistics``: a group's old keys are those of its own languages' text, otherwise of all languages' text.
    ``keeps_off``: a group leaves the values of other groups' earlier keys exactly as they are.
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
    # the sum of what each language's own edit would be, with its own statistics
    "sum": lambda languages: Combination(rounds=(tuple((code,) for code in languages),), own_statistics=True),
    # the same sum, every language against one second moment (arXiv 2605.13919)
    "shared_sum": lambda languages: Combination(rounds=(tuple((code,) for code in languages),)),
    # one language after the other, each off the earlier ones' keys (LangEdit, arXiv 2506.10800)
    "langedit": lambda languages: Combination(rounds=tuple(((code,),) for code in languages), keeps_off=True),
}


def combination(edit: str, languages: tuple[str, ...]) -> Combination:
    """Return the edit of that name: a language alone, or a way to combine all. Raises ValueError that lists the known ones."""
    if edit in languages:
        return Combination(rounds=(((edit,),),))
    if edit not in WAYS:
        raise ValueError(f"grid.edits: {edit!r} is none of {', '.join((*languages, *WAYS))}")
    return WAYS[edit](languages)
