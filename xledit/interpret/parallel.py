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


def of_files(files: Mapping[str, str]) -> Parallel:
    """Return the lines of text files. Raises ValueError when a file is missing, empty or of another length, or a line is empty."""
    sentences = {code: _lines(code, Path(name)) for code, name in files.items()}
    lengths = {code: len(lines) for code, lines in sentences.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{files[code]} has {number}" for code, number in lengths.items())
        raise ValueError(f"parallel files must have the same number of lines: {told}")
    _check_languages(sentences)
    return Parallel(sentences=sentences, groups=("",) * next(iter(lengths.values())))


def of_probes(probes: Sequence[FactProbe], languages: Sequence[str]) -> Parallel:
    """Return the sentences that all these languages were told, of facts told everywhere.

    Facts whose object is spelt alike in all languages are left out.
    """
    by_fact: dict[str, dict[str, FactProbe]] = {}
    for probe in told_everywhere(probes):
        if probe.language in languages:
            by_fact.setdefault(probe.fact_id, {})[probe.language] = probe
    without = [code for code in languages if not any(code in by_language for by_language in by_fact.values())]
    if without:
        raise ValueError(f"no probes in {', '.join(without)}; the world's languages are in tranyu.world.people of params.yaml")
    kept = {
        name: by_language
        for name, by_language in sorted(by_fact.items())
        if len(by_language) == len(languages) and not all(probe.object_alike for probe in by_language.values())
    }
    sentences = {code: tuple(by_language[code].text for by_language in kept.values()) for code in languages}
    _check_languages(sentences)
    return Parallel(sentences=sentences, groups=tuple(name.partition("/")[0] for name in kept))


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
