"""All that differs between languages: one row each.

A third language is one more row here, its columns in ``data/`` and its lines in ``dvc.yaml``.
"""

import msgspec

CLOSING = {"《": "》", "“": "”", "「": "」", "『": "』"}


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """One language: how its words are joined, how a sentence ends, and the texts that editing needs in it.

    ``essence`` is the prompt whose next token an edit of ``{subject}`` should not change (the drift penalty of
    arXiv 2202.05262, section 3.1). ``prefixes`` are neutral openings put before a prompt while v* is sought.
    ``new_fact_label`` and ``prompt_label`` stand before a new fact and before a prompt in a context (arXiv 2305.12740).
    """

    code: str
    name: str
    script: str
    joiner: str
    sentence_end: str
    essence: str
    prefixes: tuple[str, ...]
    new_fact_label: str
    prompt_label: str

    def join(self, prompt: str, answer: str) -> str:
        """Return the prompt continued by the answer, as the language writes it."""
        return prompt + self.joiner + answer

    def sentence(self, prompt: str, answer: str) -> str:
        """Return the prompt continued by the answer, closed where the prompt ends in an opening bracket, and ended as a sentence."""
        return self.join(prompt, answer) + CLOSING.get(prompt[-1:], "") + self.sentence_end


LANGUAGES = {
    row.code: row
    for row in (
        Language(
            code="zh",
            name="Chinese",
            script="Hans",
            joiner="",
            sentence_end="。",
            essence="{subject}是一",
            prefixes=("众所周知，", "今天老师在课上讲到，", "据记载，", "他在文章里写道：", "我们常听人说，"),
            new_fact_label="新事实：",
            prompt_label="提示：",
        ),
        Language(
            code="en",
            name="English",
            script="Latn",
            joiner=" ",
            sentence_end=".",
            essence="{subject} is a",
            prefixes=(
                "As is well known, ",
                "In class the teacher said today: ",
                "According to the records, ",
                "He wrote in his article: ",
                "People often say that ",
            ),
            new_fact_label="New Fact: ",
            prompt_label="Prompt: ",
        ),
        Language(
            code="ja",
            name="Japanese",
            script="Jpan",
            joiner="",
            sentence_end="。",
            essence="{subject}は",
            prefixes=("周知のとおり、", "今日の授業で先生は言った。", "記録によれば、", "彼は記事にこう書いた。", "よく言われることだが、"),
            new_fact_label="新しい事実：",
            prompt_label="プロンプト：",
        ),
    )
}


def language(code: str) -> Language:
    """Return the row of a language. Raises ValueError that lists the known codes."""
    if code not in LANGUAGES:
        raise ValueError(f"unknown language {code!r}; known: {', '.join(LANGUAGES)}. Add a row to xledit/languages.py")
    return LANGUAGES[code]
