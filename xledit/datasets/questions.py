"""ZsRE and its translations: questions about a subject, each file with English and another language side by side."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from xledit.datasets.rows import find
from xledit.datasets.wordings import NO_TRUTH, Wording, collect, decode, fact_ids
from xledit.records import Audit, FactRecords

ENGLISH = "en"


class Followed(msgspec.Struct, frozen=True):
    """A question that follows from the edit, in the columns of arXiv 2305.13172."""

    question: str | None = msgspec.field(name="New Question")
    answer: str | None = msgspec.field(name="New Answer")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One fact in one language; ``alt`` is what the edit writes, ``old`` the true answer of the data sets that have that column.

    Null is blank, and columns beside these are not read.
    """

    subject: str | None
    src: str | None
    rephrase: str | None
    alt: str | None
    loc: str | None
    loc_ans: str | None
    case_id: int | str | None = None
    old: str | UnsetType | None = UNSET
    portability: Followed | None = None
    port: str | None = None
    port_ans: str | None = None

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Subject, question and new answer, which identify a fact within its language."""
        return self.subject, self.src, self.alt

    @property
    def truths(self) -> tuple[str, ...]:
        """The true answers, the best first."""
        return (NO_TRUTH,) if self.old is UNSET else (self.old or "",)

    def wording(self, language: str) -> Wording:
        """Return the row as a ``Wording`` in a language, null as an empty text."""
        followed = self.portability or Followed(self.port, self.port_ans)
        return Wording(
            language=language,
            subject=self.subject or "",
            prompt=self.src or "",
            span=find(self.subject or "", self.src or ""),
            target_new=self.alt or "",
            truths=self.truths,
            paraphrases=(self.rephrase or "",),
            locality=((self.loc or "", self.loc_ans or ""),),
            portability=((followed.question or "", followed.answer or ""),),
        )


Row = Mapping[str, Question]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a data set of parallel questions is laid out: each file holds English and another language in each row.

    ``pattern`` is the file of a language's code; ``alone`` is the code whose file is read where English alone is asked;
    ``aliases`` are the codes that the data spell in their own way. Fact ids begin with ``prefix`` and the file's name.
    """

    source: str
    pattern: str
    alone: str
    aliases: Mapping[str, str] = {}
    prefix: str = ""

    def spellings(self, code: str) -> tuple[str, ...]:
        """Return the names that a language can have in the data."""
        return tuple(dict.fromkeys((code, self.aliases.get(code, code))))

    def file(self, path: Path, code: str) -> Path:
        """Return a language's file: ``path`` itself, or the one in that folder. Raises ValueError with the files there are."""
        if path.is_file():
            return path
        files = [file for name in self.spellings(code) for file in sorted(path.glob(self.pattern.format(code=name)))]
        if len(files) != 1:
            there = ", ".join(file.name for file in files or sorted(path.glob(self.pattern.format(code="*")))) or "no such file"
            names = " or ".join(self.pattern.format(code=name) for name in self.spellings(code))
            raise ValueError(f"{path}: no one file {names} for language {code!r}; found: {there}; {self.remedy}")
        return files[0]

    @property
    def remedy(self) -> str:
        """What to do about files that are not as expected."""
        return f"the files are those of {self.source}"

    def read(self, path: Path, languages: Sequence[str]) -> tuple[list[FactRecords], Audit]:
        """Return the records of all facts that can be edited in all of ``languages``, and the audit of all.

        Files are joined by ``case_id``, or by row where they have none. Raises ValueError with the file, and the row where
        there is one, when a file is missing or not as expected, and with the known languages for another one.
        """
        files = {code: self.file(path, code) for code in languages if code != ENGLISH} or {ENGLISH: self.file(path, self.alone)}
        tables = {file: decode(file, list[dict[str, Question]], self.remedy) for file in dict.fromkeys(files.values())}
        for code in languages:
            self._check(code, files.get(code) or next(iter(files.values())), tables)
        prefix = self.prefix + next(iter(tables)).name.split("_test")[0]
        by_id = {file: dict(zip(fact_ids(prefix, [_own_id(row) for row in rows]), rows, strict=True)) for file, rows in tables.items()}
        rows = []
        for fact_id in dict.fromkeys(fact_id for table in by_id.values() for fact_id in table):
            rows.append((fact_id, self._wordings({code: by_id[file].get(fact_id, {}) for code, file in files.items()}, languages)))
        return collect(self.source, rows)

    def _check(self, code: str, file: Path, tables: Mapping[Path, Sequence[Row]]) -> None:
        spelled = dict.fromkeys(name for row in tables[file] for name in row)
        if not any(name in spelled for name in self.spellings(code)):
            raise ValueError(f"{file}: no language {code!r}; it has: {', '.join(spelled)}; ask for those, or take another file")

    def _wordings(self, rows: Mapping[str, Row], languages: Iterable[str]) -> list[Wording] | str:
        """Return a fact's wordings from its row in each language's file, or why it has none."""
        if len({row[ENGLISH].identity for row in rows.values() if ENGLISH in row}) > 1:
            return "the files differ in English"
        wordings = []
        for code in languages:
            row = rows[code] if code in rows else next((row for row in rows.values() if row), {})
            question = next((row[name] for name in self.spellings(code) if name in row), None)
            if question is None:
                return f"no {code}"
            wordings.append(question.wording(code))
        return wordings


def _own_id(row: Row) -> int | str | None:
    return next((question.case_id for question in row.values()), None)
