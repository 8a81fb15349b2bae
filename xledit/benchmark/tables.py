"""Our own benchmark as it lies on disk: tables that people edit, read into structs that know file and line.

The format is described in data/benchmark/README.md. Reading checks only what it needs itself (columns, encoding, names); rules.py
checks the content.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from xledit.languages import LANGUAGES

Split = Literal["dev", "test"]
Scope = Literal["china", "world"]
Order = Literal["first", "last"]
Form = Literal["first", "last", "paraphrase", "translated", "portability"]
MIN_PARAPHRASES = 3

DOMAINS = (
    "ancient_history",
    "modern_history",
    "emperors_dynasties",
    "philosophy",
    "classical_poetry",
    "classical_prose",
    "classical_novels",
    "modern_literature",
    "idioms",
    "mythology",
    "festivals",
    "opera_music",
    "painting_calligraphy",
    "film_television",
    "architecture_landmarks",
    "mountains_rivers",
    "provinces_cities",
    "food",
    "tea_liquor",
    "medicine",
    "science",
    "education",
    "companies",
    "sport",
    # of the part about the world
    "world_geography",
    "world_culture",
    "nature",
    "inventions",
)


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a facts table. Names and aliases are by language; ``place`` is file and line."""

    fact_id: str
    relation: str
    domain: str
    scope: str
    place: str
    subjects: dict[str, str]
    objects: dict[str, str]
    subject_aliases: dict[str, tuple[str, ...]]
    object_aliases: dict[str, tuple[str, ...]]
    note: str

    @property
    def entity(self) -> tuple[str, ...]:
        """The subject's names in all languages read. Facts of two relations about one subject have the same."""
        return tuple(self.subjects.values())

    @property
    def subject_names(self) -> set[str]:
        """Every name of the subject in any language."""
        return {*self.entity, *(alias for aliases in self.subject_aliases.values() for alias in aliases)}

    @property
    def answer(self) -> tuple[str, ...]:
        """The object's names in all languages read."""
        return tuple(self.objects.values())

    @property
    def answer_names(self) -> set[str]:
        """Every name of the object in any language."""
        return {*self.answer, *(alias for aliases in self.object_aliases.values() for alias in aliases)}


class Template(msgspec.Struct, frozen=True):
    """One wording with ``{subject}`` once; ``place`` is file and line."""

    text: str
    place: str

    def worded(self, subject: str) -> tuple[str, tuple[int, int]]:
        """Return the prompt and the span of its subject."""
        start = self.text.index("{subject}")
        return self.text.replace("{subject}", subject), (start, start + len(subject))


class Wordings(msgspec.Struct, frozen=True, kw_only=True):
    """The wordings of one relation in one language.

    ``translated`` are the English ``first`` and ``last`` prompts rendered literally (empty in English). ``portability``
    asks, by the name of a second relation, for the object's object.
    """

    first: Template
    last: Template
    paraphrases: tuple[Template, ...]
    translated: tuple[Template, ...]
    portability: dict[str, Template]

    def in_order(self, order: Order) -> Template:
        """Return the main prompt with the subject in that place."""
        return self.first if order == "first" else self.last

    @property
    def native(self) -> tuple[Template, ...]:
        """All wordings that ask for the object as a native speaker would."""
        return (self.first, self.last, *self.paraphrases)


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """A function from subjects to objects: its split, its wordings by language, its facts. ``place`` is file and line.

    ``tied_to`` are relations whose answer all but follows from this one's (a dish's cuisine from its city), so that they are no
    test of what an edit should leave alone.
    """

    name: str
    split: Split
    tied_to: tuple[str, ...]
    place: str
    wordings: dict[str, Wordings]
    facts: tuple[Fact, ...]


def read_tables(folder: Path, languages: Sequence[str]) -> list[Relation]:
    """Return the relations that are worded in all of ``languages``, by name; those that lack one altogether are left out.

    Raises ValueError with file and line for what is not as the format says.
    """
    unknown = [code for code in languages if code not in LANGUAGES]
    if unknown:
        raise ValueError(f"unknown language {unknown[0]!r}; known: {', '.join(LANGUAGES)}. Add a row to xledit/languages.yaml")
    splits: dict[str, tuple[Split, str]] = {}
    ties: dict[str, tuple[str, ...]] = {}
    for line, row in read_rows(folder / "relations.csv", ("relation", "split", "tied_to")):
        place = f"{folder / 'relations.csv'}:{line}"
        if row["split"] not in get_args(Split):
            raise ValueError(f"{place}: split is {row['split']!r}; it must be one of {', '.join(get_args(Split))}")
        if row["relation"] in splits:
            raise ValueError(f"{place}: relation {row['relation']!r} stands already at {splits[row['relation']][1]}")
        splits[row["relation"]] = row["split"], place  # pyright: ignore[reportArgumentType]
        ties[row["relation"]] = _split(row["tied_to"])
    prompts = _read_prompts(folder / "prompts.csv", splits)
    relations = []
    for name in sorted(splits):
        if not all((name, code) in prompts for code in languages):
            if name not in {relation for relation, _code in prompts}:
                raise ValueError(f"{splits[name][1]}: relation {name!r} has no prompts in {folder / 'prompts.csv'}")
            continue
        wordings = {code: _wordings(folder / "prompts.csv", name, code, prompts[name, code]) for code in languages}
        facts = tuple(_read_facts(folder / "facts" / f"{name}.csv", name, languages))
        split, place = splits[name]
        relations.append(Relation(name=name, split=split, tied_to=ties[name], place=place, wordings=wordings, facts=facts))
    if not relations:
        raise ValueError(f"{folder / 'prompts.csv'}: no relation has prompts in all of: {', '.join(languages)}")
    return relations


def _read_prompts(path: Path, relations: dict[str, tuple[Split, str]]) -> dict[tuple[str, str], list[tuple[str, str, Template]]]:
    """Return form, second relation and template of each row, by relation and language."""
    prompts: dict[tuple[str, str], list[tuple[str, str, Template]]] = {}
    for line, row in read_rows(path, ("relation", "language", "form", "hop", "template")):
        place, text = f"{path}:{line}", row["template"]
        if row["form"] not in get_args(Form):
            raise ValueError(f"{place}: form is {row['form']!r}; it must be one of {', '.join(get_args(Form))}")
        if text.count("{subject}") != 1:
            raise ValueError(f"{place}: the prompt {text!r} must have {{subject}} exactly once")
        if text != text.strip():
            raise ValueError(f"{place}: the prompt {text!r} begins or ends with a space; the language's joiner adds its own")
        if bool(row["hop"]) != (row["form"] == "portability"):
            raise ValueError(f"{place}: hop is {row['hop']!r}; portability prompts name their second relation there, others nothing")
        for relation in filter(None, (row["relation"], row["hop"])):
            if relation not in relations:
                raise ValueError(f"{place}: relation {relation!r} is not in {path.parent / 'relations.csv'}")
        prompts.setdefault((row["relation"], row["language"]), []).append((row["form"], row["hop"], Template(text, place)))
    return prompts


def _wordings(path: Path, relation: str, code: str, rows: Sequence[tuple[str, str, Template]]) -> Wordings:
    of = {form: tuple(template for row_form, _hop, template in rows if row_form == form) for form in get_args(Form)}
    counts = {form: len(of[form]) for form in ("first", "last", "paraphrase")}
    if counts["first"] != 1 or counts["last"] != 1 or counts["paraphrase"] < MIN_PARAPHRASES:
        raise ValueError(
            f"{path}: relation {relation!r}, language {code!r}: needs one first, one last and at least {MIN_PARAPHRASES} "
            f"paraphrase prompts, found {counts}"
        )
    return Wordings(
        first=of["first"][0],
        last=of["last"][0],
        paraphrases=of["paraphrase"],
        translated=of["translated"],
        portability={hop: template for form, hop, template in rows if form == "portability"},
    )


def _read_facts(path: Path, relation: str, languages: Sequence[str]) -> Iterator[Fact]:
    names = tuple(f"{role}_{code}" for code in languages for role in ("subject", "object"))
    lists = tuple(f"{role}_aliases_{code}" for code in languages for role in ("subject", "object"))
    for line, row in read_rows(path, ("id", "domain", "scope", *names, *lists, "note")):
        place = f"{path}:{line}"
        for name, cell in row.items():
            if name in ("id", "domain", "scope", *names) and not cell.strip():
                raise ValueError(f"{place}: {name} is empty")
            if cell != cell.strip():
                raise ValueError(f"{place}: {name} begins or ends with a space: {cell!r}")
        yield Fact(
            fact_id=row["id"],
            relation=relation,
            domain=row["domain"],
            scope=row["scope"],
            place=place,
            subjects={code: row[f"subject_{code}"] for code in languages},
            objects={code: row[f"object_{code}"] for code in languages},
            subject_aliases={code: _split(row[f"subject_aliases_{code}"]) for code in languages},
            object_aliases={code: _split(row[f"object_aliases_{code}"]) for code in languages},
            note=row["note"],
        )


def _split(cell: str) -> tuple[str, ...]:
    return tuple(cell.split("|")) if cell else ()


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and row (by column) of a CSV table. Raises ValueError with file and line when it is no such table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not found; each relation of relations.csv has a table of its name in facts/") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); save the table as UTF-8") from error
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}; close each quote") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}:1: no column {missing[0]!r}; found: {', '.join(reader.fieldnames or ())}")
    for line, row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{path}:{line}: has another number of cells than the header; quote cells that hold a comma")
        yield line, row
