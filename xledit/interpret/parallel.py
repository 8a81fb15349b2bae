"""Parallel sentences: of the synthetic world's facts, or of local files with one sentence a line, as FLORES-200 has them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from xledit.training.probes import FactProbe


class Parallel(msgspec.Struct, frozen=True, kw_only=True):
    """Sentences by language; sentence i means the same in all languages.

    ``groups`` is a name for each i: sentences with the same name have the same pattern (of one relation).
    """

    sentences: dict[str, tuple[str, ...]]
    groups: tuple[str, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order given."""
        return tuple(self.sentences)


def of_files(files: Mapping[str, str], most: int | None = None) -> Parallel:
    """Return the first ``most`` lines of text files (None: all).

    Raises ValueError when a file is missing, empty or of another length, or a line is empty.
    """
    sentences = {code: _lines(code, Path(name)) for code, name in files.items()}
    lengths = {code: len(lines) for code, lines in sentences.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{files[code]} has {number}" for code, number in lengths.items())
        raise ValueError(f"parallel files must have the same number of lines: {told}")
    _check_languages(sentences)
    sentences = {code: lines[:most] for code, lines in sentences.items()}
    return Parallel(sentences=sentences, groups=("",) * len(next(iter(sentences.values()))))


def of_probes(probes: Sequence[FactProbe], languages: Sequence[str], most: int | None = None) -> Parallel:
    """Return the sentences that all these languages were told, of ``most`` facts told everywhere (None: of all), evenly by relation.

    Facts whose object is spelt alike in all languages are left out.
    """
    by_fact: dict[str, dict[str, FactProbe]] = {}
    for probe in told_everywhere(probes):
        if probe.language in languages:
            by_fact.setdefault(probe.fact_id, {})[probe.language] = probe
    without = [code for code in languages if not any(code in by_language for by_language in by_fact.values())]
    if without:
        raise ValueError(f"no probes in {', '.join(without)}; the world's languages are in tranyu.world.people of params.yaml")
    kept = [
        name
        for name, by_language in sorted(by_fact.items())
        if len(by_language) == len(languages) and not all(probe.object_alike for probe in by_language.values())
    ]
    groups = [name.partition("/")[0] for name in kept]
    turns = [groups[:place].count(group) for place, group in enumerate(groups)]  # the first of each relation, the second of each, ...
    chosen = sorted(sorted(range(len(kept)), key=lambda place: turns[place])[:most])
    sentences = {code: tuple(by_fact[kept[place]][code].text for place in chosen) for code in languages}
    _check_languages(sentences)
    return Parallel(sentences=sentences, groups=tuple(groups[place] for place in chosen))


def told_everywhere(probes: Iterable[FactProbe]) -> list[FactProbe]:
    """Return the sentences that all languages were told."""
    return [probe for probe in probes if probe.told == "everywhere" and probe.wording == "told"]


def _lines(code: str, path: Path) -> tuple[str, ...]:
    try:
        lines = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the sentences of {code} cannot be read ({error}); give a text file in UTF-8") from error
    empty = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if empty:
        raise ValueError(f"{path}: line {empty[0]} is empty; every line is a sentence and stands beside its translations")
    return lines


def _check_languages(sentences: Mapping[str, Sequence[str]]) -> None:
    few = next((code for code, lines in sentences.items() if len(lines) < 4), None)
    if len(sentences) < 2 or few:
        raise ValueError(
            f"found {len(sentences)} languages{f' and {len(sentences[few])} sentences in {few}' if few else ''}; "
            f"comparing needs two languages and four parallel sentences, half of which train the probe"
        )
