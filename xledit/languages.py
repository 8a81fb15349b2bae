"""All that differs between languages: one row each of ``languages.yaml``.

A language is one more row there and its columns in ``data/``. The stage ``prepare`` writes the rows of a run's languages to
artifacts/languages.json, and the stages that word prompts depend on that file: a new row makes no run stale that does not use it.
"""

import sys
from pathlib import Path

import msgspec
from ruamel.yaml import YAML

ROWS = Path(__file__).with_name("languages.yaml")

CLOSING = {"《": "》", "“": "”", "「": "」", "『": "』"}


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


def _read() -> dict[str, Language]:
    """Return the rows of ``languages.yaml``. Raises ValueError that names the file, the row and the key that does not fit."""
    rows = YAML(typ="safe", pure=True).load(ROWS.read_text(encoding="utf-8"))
    try:
        return {code: msgspec.convert({"code": code, **row}, Language) for code, row in rows.items()}
    except (msgspec.ValidationError, AttributeError, TypeError) as error:
        raise ValueError(f"{ROWS}: {error}") from error


LANGUAGES = _read()


def language(code: str) -> Language:
    """Return the row of a language. Raises ValueError that lists the known codes."""
    sys.audit("xledit.language", code)
    if code not in LANGUAGES:
        raise ValueError(f"unknown language {code!r}; known: {', '.join(LANGUAGES)}. Add a row to xledit/languages.yaml")
    return LANGUAGES[code]
