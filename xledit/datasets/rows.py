"""One row per fact and language, laid out as CLM-Bench lays them out, and the checks that count a data set's defects.

The same checks are run on CLM-Bench and on our own benchmark, so that the counts can stand side by side.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import SequenceMatcher

import msgspec

from xledit.languages import language

SCRIPTS = {"Hans": re.compile("[\u4e00-\u9fff]"), "Latn": re.compile("[A-Za-z]")}
COPULAS_AND_ARTICLES = {"是", "is", "was", "are", "were", "the", "a", "an"}


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row in one language; the names are the data's, without the prefix ``english_``."""

    language: str
    case_id: int | str
    prompt: str
    target_new: str
    subject: str
    ground_truth: str | None
    rephrase_prompt: str
    loc: str
    loc_ans: str

    @property
    def truth(self) -> str:
        """The true answer, empty where the data have null."""
        return self.ground_truth or ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All fields but the id."""
        return (self.prompt, self.target_new, self.subject, self.truth, self.rephrase_prompt, self.loc, self.loc_ans)

    @property
    def around_subject(self) -> tuple[str, str]:
        """The prompt before and after its subject; all of it before where the subject is not in it."""
        start, end = find(self.subject, self.prompt) or (len(self.prompt), len(self.prompt))
        return self.prompt[:start], self.prompt[end:]

    @property
    def up_to_subject(self) -> str:
        """The prompt up to the end of its subject: rows that share it have the same key."""
        return self.prompt.removesuffix(self.around_subject[1])


def find(subject: str, text: str) -> tuple[int, int] | None:
    """Return the span of the first occurrence of the subject, in any case, because English capitalises a prompt's first word."""
    match = re.search(re.escape(subject), text, re.IGNORECASE)
    return match and match.span()


Columns = Mapping[str, Sequence[Row]]
Check = Callable[[Columns], dict[str, int]]
Value = Callable[[Row], Hashable]


def by_language(number: Callable[[Sequence[Row]], int], *only: str) -> Check:
    """Return a check that gives ``number(rows)`` by language, for all languages or those of ``only``."""
    return lambda columns: {code: number(rows) for code, rows in columns.items() if not only or code in only}


def across(holds: Callable[[Sequence[Row]], bool]) -> Check:
    """Return a check that counts the facts whose rows in all languages hold, under "all"; empty for a single language."""
    return lambda columns: {"all": sum(map(holds, zip(*columns.values(), strict=True)))} if len(columns) > 1 else {}


def count(holds: Callable[[Row], bool], *only: str) -> Check:
    """Return a check that counts the rows for which ``holds``."""
    return by_language(lambda rows: sum(map(holds, rows)), *only)


def groups(value: Value) -> Check:
    """Return a check that counts the values which several rows share."""
    return by_language(lambda rows: len(_sizes(rows, value)))


def sharing(value: Value) -> Check:
    """Return a check that counts the rows which share their value with another."""
    return by_language(lambda rows: sum(_sizes(rows, value)))


def _sizes(rows: Sequence[Row], value: Value) -> list[int]:
    return [size for size in Counter(map(value, rows)).values() if size > 1]


def similarity(row: Row) -> float:
    """Return how alike prompt and paraphrase are, from 0 to 1 (difflib)."""
    return SequenceMatcher(None, row.prompt, row.rephrase_prompt).ratio()


def near_duplicates(rows: Sequence[Row], above: float = 0.9) -> int:
    """Return the number of pairs of rows whose prompts are more alike than ``above`` (difflib, the earlier row first)."""
    num_pairs = 0
    for number, row in enumerate(rows):
        matcher = SequenceMatcher(None, "", row.prompt)
        for other in rows[:number]:
            matcher.set_seq1(other.prompt)
            # the two quick ratios are upper bounds of the slow one
            num_pairs += matcher.real_quick_ratio() > above and matcher.quick_ratio() > above and matcher.ratio() > above
    return num_pairs


def conflicts(wordings: Callable[[Row], Sequence[Hashable]]) -> Check:
    """Return a check that counts the sets of different targets which rows with a wording in common ask for."""

    def number(rows: Sequence[Row]) -> int:
        targets = defaultdict(set)
        for row in rows:
            for wording in wordings(row):
                targets[wording].add(row.target_new)
        return len({frozenset(asked_for) for asked_for in targets.values() if len(asked_for) > 1})

    return by_language(number)


def paraphrases_elsewhere(rows: Sequence[Row]) -> int:
    """Return the number of rows whose paraphrase is the prompt of another row."""
    prompts = {row.prompt for row in rows}
    return sum(row.rephrase_prompt in prompts and row.rephrase_prompt != row.prompt for row in rows)


def target_equals_truth(row: Row) -> bool:
    """Return whether the new answer is the true one, but for case."""
    return row.target_new.strip().casefold() == row.truth.strip().casefold()


def inside(part: str, whole: str) -> bool:
    """Return whether a text that is not empty is a part of a longer one."""
    return bool(part) and part != whole and part in whole


def scripts(text: str) -> set[str]:
    """Return the scripts that a text has letters of."""
    return {name for name, letters in SCRIPTS.items() if letters.search(text)}


def foreign(row: Row, text: str) -> bool:
    """Return whether a text has letters, but none of the row's language."""
    return bool(scripts(text)) and language(row.language).script not in scripts(text)


CHECKS: dict[str, Check] = {
    "string_ids": count(lambda row: isinstance(row.case_id, str)),
    "duplicated_ids": groups(lambda row: str(row.case_id)),
    "id_mismatches": across(lambda pair: len({str(row.case_id) for row in pair}) > 1),
    "null_truths": count(lambda row: row.ground_truth is None),
    "empty_fields": count(lambda row: row.ground_truth is not None and not all(text.strip() for text in row.texts)),
    "subject_not_in_prompt": count(lambda row: not find(row.subject, row.prompt)),
    "subject_not_in_paraphrase": count(lambda row: not find(row.subject, row.rephrase_prompt)),
    "subject_is_whole_prompt": count(lambda row: COPULAS_AND_ARTICLES.issuperset(" ".join(row.around_subject).casefold().split())),
    "target_equals_truth": count(target_equals_truth),
    "target_inside_truth": count(lambda row: inside(row.target_new, row.truth)),
    "truth_inside_target": count(lambda row: inside(row.truth, row.target_new)),
    "truth_in_prompt": count(lambda row: inside(row.truth.casefold(), row.prompt.casefold())),
    "paraphrase_equals_prompt": count(lambda row: row.rephrase_prompt == row.prompt),
    "paraphrase_similarity_above_90": count(lambda row: similarity(row) > 0.9),
    "paraphrase_similarity_above_80": count(lambda row: similarity(row) > 0.8),
    "paraphrase_is_another_prompt": by_language(paraphrases_elsewhere),
    "same_paraphrase_other_target": conflicts(lambda row: [row.rephrase_prompt]),
    "contradictory_edits": conflicts(lambda row: [(wording, row.truth) for wording in (row.prompt, row.rephrase_prompt)]),
    "duplicate_prompts": sharing(lambda row: row.prompt),
    "duplicate_prompt_groups": groups(lambda row: row.prompt),
    "near_duplicate_prompt_pairs": by_language(near_duplicates),
    "repeated_subjects": sharing(lambda row: row.subject.casefold()),
    "repeated_subject_groups": groups(lambda row: row.subject.casefold()),
    "repeated_targets": sharing(lambda row: row.target_new.casefold()),
    "repeated_target_groups": groups(lambda row: row.target_new.casefold()),
    "chinese_in_english_fields": count(lambda row: any("Hans" in scripts(text) for text in row.texts), "en"),
    "locality_question_foreign": count(lambda row: foreign(row, row.loc)),
    "locality_question_mixed": count(lambda row: len(scripts(row.loc)) > 1),
    "locality_answer_foreign": count(lambda row: foreign(row, row.loc_ans)),
    "locality_answer_mixed": count(lambda row: len(scripts(row.loc_ans)) > 1),
    "locality_answer_digits_only": count(lambda row: not scripts(row.loc_ans)),
    "locality_not_own_language": count(lambda row: not scripts(row.loc) == scripts(row.loc_ans) == {language(row.language).script}),
    "locality_prefixed": count(lambda row: row.loc.startswith("nq question: ")),
    "locality_repeated": groups(lambda row: row.loc),
    "locality_padded": count(lambda row: row.loc != row.loc.strip()),
    "locality_answer_same_in_all": across(lambda pair: len({row.loc_ans for row in pair}) == 1),
    "subject_first": count(lambda row: not row.around_subject[0]),
    # words are split at spaces, so the question has no meaning in Chinese
    "at_most_one_word_after_subject": count(lambda row: len(row.around_subject[1].split()) <= 1, "en"),
    "key_collisions": sharing(lambda row: row.up_to_subject),
    "key_collision_groups": groups(lambda row: row.up_to_subject),
}
