"""What tunes a model: conversations and preferences, made of questions about the world's persons or read from data sets of the hub.

What is read is only parsed (JSON, Parquet, Arrow): the datasets library runs no code of a data set and reads no pickle.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from xledit.training import catalog
from xledit.training.questions import Question, Questions
from xledit.training.tuning_results import RowCounts

Role = Literal["system", "user", "assistant"]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
# what ShareGPT's and others' roles are called
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
# under which names a turn says who speaks, and what
KEYS = (("role", "content"), ("from", "value"))
UNKNOWN = "unknown"


class Turn(Struct, frozen=True):
    """What one side says."""

    role: Role
    content: str


class Conversation(Struct, frozen=True):
    """Turns of user and assistant by turns, the first maybe the system's, the last the assistant's."""

    language: str
    turns: tuple[Turn, ...]


class Preference(Struct, frozen=True):
    """Two answers to what was said before, of which the ``chosen`` one is better."""

    language: str
    prompt: tuple[Turn, ...]
    chosen: Turn
    rejected: Turn


class BadRowError(ValueError):
    """A row that is no conversation; ``reason`` is what such rows are counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# settings: which columns hold what


class Turns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layout", tag="turns"):
    """A column that lists turns, with ``role`` and ``content`` each, or with ``from`` and ``value`` (ShareGPT)."""

    column: str = "messages"

    def read(self, row: Mapping[str, Any], language: str) -> Conversation:
        """Return the row's conversation. Raises BadRowError."""
        turns = _turns(_column(row, self.column), self.column)
        _check_order(turns, self.column)
        return Conversation(language, turns)


class Fields(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layout", tag="fields"):
    """A column for each part of a single exchange.

    Those of ``prompt`` are set below each other, an empty one left out: instruction and input, or a question.
    """

    prompt: Annotated[tuple[str, ...], Meta(min_length=1)]
    answer: str
    system: str | None = None

    def read(self, row: Mapping[str, Any], language: str) -> Conversation:
        """Return the row's conversation. Raises BadRowError."""
        parts = [text for name in self.prompt if (text := _text(row, name))]
        if not parts:
            raise BadRowError("no prompt", f"nothing in {' and '.join(self.prompt)}")
        turns = [Turn("user", "\n".join(parts)), Turn("assistant", _answer(_text(row, self.answer), self.answer))]
        if self.system and (system := _text(row, self.system)):
            turns.insert(0, Turn("system", system))
        return Conversation(language, tuple(turns))


class Sides(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layout", tag="sides"):
    """Two columns of answers, the ``chosen`` one better: texts or lists of turns, with all that was said before or without.

    ``prompt`` is the column of what was said before, a text or a list of turns, where the sides do not have it in them.
    """

    chosen: str = "chosen"
    rejected: str = "rejected"
    prompt: str | None = None

    def read(self, row: Mapping[str, Any], language: str) -> Preference:
        """Return the row's preference. Raises BadRowError, also when both sides say the same."""
        before = () if self.prompt is None else self._before(_column(row, self.prompt))
        (prompt, chosen), (other, rejected) = (self._side(row, name, before) for name in (self.chosen, self.rejected))
        if prompt != other:
            raise BadRowError("other prompt", f"{self.chosen} and {self.rejected} do not answer the same")
        if chosen == rejected:
            raise BadRowError("equal sides", f"{self.chosen} and {self.rejected} are equal, so nothing is preferred")
        return Preference(language, prompt, chosen, rejected)

    def _before(self, found: Any) -> tuple[Turn, ...]:
        return (Turn("user", found),) if isinstance(found, str) else _turns(found, str(self.prompt))

    def _side(self, row: Mapping[str, Any], name: str, before: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], Turn]:
        found = _column(row, name)
        turns = before + ((Turn("assistant", found),) if isinstance(found, str) else _turns(found, name))
        _check_order(turns, name)
        return turns[:-1], turns[-1]


# settings: sources


Example = TypeVar("Example", Conversation, Preference, covariant=True)
Columns = TypeVar("Columns")


class QuestionRows(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="questions"):
    """Questions about those of the world's persons who are there to tune with, each with its answer.

    ``per_language`` is how many of each language at most, drawn evenly (null: all).
    """

    per_language: Positive | None = None

    def __str__(self) -> str:
        return "questions"

    def examples(self, questions: Questions, seed: int, _tally: "Tally") -> Iterator[Conversation]:
        """Yield each question with its answer."""
        for question in _drawn(questions, self.per_language, seed):
            yield Conversation(question.language, (Turn("user", question.text), _said(questions, question, question.language)))


class QuestionPairs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="questions"):
    """The same questions, each with its answer as the chosen one.

    Rejected is the right answer in another language with the probability ``other_language``, else a wrong one in the asked language.
    """

    per_language: Positive | None = None
    other_language: Share = 0.5

    def __str__(self) -> str:
        return "questions"

    def examples(self, questions: Questions, seed: int, _tally: "Tally") -> Iterator[Preference]:
        """Yield each question with its answer and a worse one, each spelt as its own language spells it."""
        for question in _drawn(questions, self.per_language, seed):
            right = questions.answer(question)
            draw = random.Random(f"{seed}/preference/{question.language}/{question.fact_id}")
            # a language that spells the value alike says nothing worse
            elsewhere = [code for code in sorted(questions.answers) if questions.answer(question, code) != right]
            if elsewhere and draw.random() < self.other_language:
                rejected = _said(questions, question, draw.choice(elsewhere))
            else:
                rejected = _spaced(draw.choice(questions.others(question)), question.language)
            yield Preference(question.language, (Turn("user", question.text),), _said(questions, question, question.language), rejected)


class _Table(Struct, Generic[Columns], frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Rows with columns.

    ``language`` is what they are counted under, ``language_column`` where that differs by row. Of rows ``only`` those are read that
    have one of these values in these columns, and those that have one of ``without`` are not. ``limit`` is how many rows are
    looked at, -1 for all. ``skip_bad`` leaves rows out that are no conversation, and counts them; else the first one is an error.
    """

    path: str
    columns: Columns
    language: str = UNKNOWN
    language_column: str | None = None
    only: dict[str, tuple[str, ...]] = {}
    without: dict[str, tuple[str, ...]] = {}
    limit: Annotated[int, Meta(ge=-1)] = -1
    skip_bad: bool = False

    def __str__(self) -> str:
        return self.path

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each row with its place. Raises ValueError where there are none or one cannot be read."""
        raise TypeError(f"{type(self).__name__} does not say how its rows are read")

    def examples(self, _questions: Questions, _seed: int, tally: "Tally") -> Iterator[Any]:
        """Yield what ``columns`` read in each row. Raises ValueError that names file, row and column of what is none."""
        columns: Any = self.columns
        for number, (place, row) in enumerate(self.rows()):
            if number == self.limit:
                break
            language = UNKNOWN
            try:
                if not isinstance(row, dict):
                    raise BadRowError("no columns", f"a row is an object with columns, not {type(row).__name__}")
                language = self.language if self.language_column is None else str(_column(row, self.language_column))
                if self._is_wanted(row):
                    yield columns.read(row, language)
                else:
                    tally.drop(self, language, "not wanted")
            except BadRowError as error:
                if not self.skip_bad:
                    raise ValueError(f"{place}: {error}; mend it, correct `columns`, or set skip_bad to leave such rows out") from error
                tally.drop(self, language, error.reason)

    def _is_wanted(self, row: Mapping[str, Any]) -> bool:
        return all(str(_column(row, name)) in values for name, values in self.only.items()) and not any(
            str(_column(row, name)) in values for name, values in self.without.items()
        )


class Jsonl(_Table[Columns], Generic[Columns], frozen=True, kw_only=True, tag="jsonl"):
    """JSON lines: a file, or the ``*.jsonl`` of a folder."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each row with its place. Raises ValueError where there is no file or a line is not JSON."""
        path = Path(self.path)
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ValueError(f"{path}: no such file, and no folder with *.jsonl; correct path")
        for file in files:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        row = msgspec.json.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        raise ValueError(f"{file}: line {number} is not JSON: {error}; mend it") from error
                    yield f"{file}: line {number}", row


class Dataset(_Table[Columns], Generic[Columns], frozen=True, kw_only=True, tag="datasets"):
    """A data set of the datasets library: a folder here in the hub's layout, or a name on the hub, of which ``revision`` names a commit.

    A newer one is not noticed otherwise. ``streaming`` reads without keeping a copy.
    """

    config: str | None = None
    data_dir: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False

    def __str__(self) -> str:
        return self.path if self.config is None else f"{self.path} ({self.config})"

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each row with its place. Raises ValueError where the data set cannot be read."""
        import datasets

        number = 0
        options: dict[str, Any] = {"name": self.config, "data_dir": self.data_dir, "split": self.split, "revision": self.revision}
        try:
            for row in datasets.load_dataset(self.path, **options, streaming=self.streaming):
                yield f"{self}, split {self.split}: row {number}", row
                number += 1
        except Exception as error:  # datasets, pyarrow and fsspec raise many kinds
            raise ValueError(f"{self}, split {self.split}, row {number}: {error}; mend it, or correct its row of the settings") from error


class Source(Protocol[Example]):
    """What all kinds of sources do."""

    def examples(self, questions: Questions, seed: int, tally: "Tally", /) -> Iterator[Example]:
        """Yield conversations, or preferences."""
        ...


class Tally:
    """Counts rows by source and language: those that are taken, and those that are dropped, by reason."""

    def __init__(self) -> None:
        self.taken = Counter[tuple[str, str]]()
        self.dropped: dict[tuple[str, str], Counter[str]] = {}

    def take(self, source: object, language: str) -> None:
        """Count a row that is learnt from."""
        self.taken[str(source), language] += 1

    def drop(self, source: object, language: str, reason: str) -> None:
        """Count a row that is not."""
        self.dropped.setdefault((str(source), language), Counter())[reason] += 1

    def counts(self) -> list[RowCounts]:
        """Return what was counted, in the order in which sources and languages were met."""
        keys = dict.fromkeys([*self.taken, *self.dropped])
        return [RowCounts(source=key[0], language=key[1], taken=self.taken[key], dropped=dict(self.dropped.get(key, {}))) for key in keys]


def _said(questions: Questions, question: Question, language: str) -> Turn:
    """Return the right answer in a language."""
    return _spaced(questions.answer(question, language), language)


def _spaced(name: str, language: str) -> Turn:
    """Return a name as an answer, with a space before it where spaces separate words.

    It is then the token that the corpus has within its sentences. Without, a small tokenizer spells it in pieces that the model has never
    seen, and nothing of what it knows is said.
    """
    return Turn("assistant", f" {name}" if catalog.row(language).writing == "spaced" else name)


def _drawn(questions: Questions, most: int | None, seed: int) -> Iterator[Question]:
    """Yield the questions to tune with, ``most`` of each language at most."""
    by_language: dict[str, list[Question]] = {}
    for question in questions.questions:
        if question.split == "train":
            by_language.setdefault(question.language, []).append(question)
    for code, some in by_language.items():
        yield from some if most is None or most >= len(some) else random.Random(f"{seed}/questions/{code}").sample(some, most)


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise BadRowError("no column", f"no column {name!r}, only {', '.join(map(str, row)) or 'nothing'}")
    return row[name]


def _text(row: Mapping[str, Any], name: str) -> str:
    """Return the text of a column, an empty one where it holds null."""
    found = _column(row, name)
    if not isinstance(found, str | None):
        raise BadRowError("no text", f"{name} holds {type(found).__name__}, not a text")
    return found if found and not found.isspace() else ""


def _answer(text: str, place: str) -> str:
    if not text or text.isspace():
        raise BadRowError("empty answer", f"{place} has an empty answer")
    return text


def _turns(found: Any, column: str) -> tuple[Turn, ...]:
    """Return the turns that a column lists, an empty one of the system's left out."""
    if not isinstance(found, list) or not found:
        raise BadRowError("no turns", f"{column} holds {type(found).__name__}, not a list of turns")
    turns = []
    for place, turn in enumerate(found):
        keys = next((keys for keys in KEYS if isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in keys)), None)
        if keys is None:
            wanted = " or ".join(" and ".join(pair) for pair in KEYS)
            raise BadRowError("no text", f"{column}: turn {place} is no object with texts under {wanted}")
        speaker, text = (turn[key] for key in keys)
        if speaker not in ROLES:
            raise BadRowError("unknown role", f"{column}: turn {place} is said by {speaker!r}; known: {', '.join(ROLES)}")
        if ROLES[speaker] != "system" or (text and not text.isspace()):
            turns.append(Turn(ROLES[speaker], text))
    return tuple(turns)


def _check_order(turns: Sequence[Turn], column: str) -> None:
    """Raise BadRowError unless user and assistant take turns, the assistant has the last word, and no turn is empty."""
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise BadRowError("out of turn", f"{column} goes {', '.join(roles) or 'nowhere'}; wanted: user, assistant and so on")
    for place, turn in enumerate(turns):
        if turn.role == "assistant":
            _answer(turn.content, f"{column}: turn {place}")
        elif not turn.content or turn.content.isspace():
            raise BadRowError("no prompt", f"{column}: turn {place}, the {turn.role}'s, is empty")
