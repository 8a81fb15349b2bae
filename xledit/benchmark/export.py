"""Our facts in the layouts of other tools, so that their numbers can stand beside ours: pure functions, records in and rows out.

CLM-Bench's three files (arXiv 2601.17397) have the keys of the released ones. CounterFact's rows serve two tools as they
are: memit reads ``requested_rewrite`` and the lists of prompts (dsets/counterfact.py, experiments/evaluate.py), EasyEdit
the flat keys of its ``counterfact-edit.json`` (dataset/counterfact.py, editors/utils.py).
"""

from collections.abc import Sequence
from typing import Any

from xledit.datasets.clm_bench import FILE_OF
from xledit.records import EditRequest, FactRecords, Kind

MERGED = "merged_alternate_fields_no_english.json"
UNPREFIXED = ("case_id", "loc", "loc_ans")


def clm_rows(facts: Sequence[FactRecords]) -> dict[str, list[dict[str, str | int]]]:
    """Return the rows of CLM-Bench's files, by file name: Chinese, English with prefixed keys, both in turn without prefix.

    ``rephrase_prompt`` is the first paraphrase, or else the rewording; ``loc`` the first question about something else.
    The layout has no span: its readers find the first occurrence of the subject. Ids count from 1, as in the released files.

    Raises ValueError for a fact that lacks a language, a paraphrase or a question about something else.
    """
    rows = {code: [_clm_row(fact, code, number) for number, fact in enumerate(facts, start=1)] for code in FILE_OF}
    prefixed = [{name if name in UNPREFIXED else f"english_{name}": value for name, value in row.items()} for row in rows["en"]]
    merged = [row for pair in zip(rows["zh"], rows["en"], strict=True) for row in pair]
    return {FILE_OF["zh"]: rows["zh"], FILE_OF["en"]: prefixed, MERGED: merged}


def counterfact_rows(facts: Sequence[FactRecords], language: str) -> list[dict[str, Any]]:
    """Return CounterFact's rows in one language, with EasyEdit's flat keys beside memit's.

    ``case_id`` is the fact's place, from 0 (memit calculates with it). ``neighborhood_prompts`` has only the questions
    about something else with the same true answer, because memit asks them all for that one; where there are none, its
    summary has NaN. Other lists may be empty, too: ``attribute_prompts`` is not evaluated, ``generation_prompts`` only
    against texts by Wikidata id, which our facts do not have, so memit runs with ``--skip_generation_tests``. Of EasyEdit's
    keys ``rephrase_prompt``, ``locality_prompt`` and ``locality_ground_truth`` are null where there is none.

    Raises ValueError for a fact that lacks the language.
    """
    return [_counterfact_row(fact, language, number) for number, fact in enumerate(facts)]


def _clm_row(fact: FactRecords, code: str, number: int) -> dict[str, str | int]:
    request, paraphrases, questions = _request(fact, code), _paraphrases(fact, code), _asked(fact, code, "locality")
    if not paraphrases or not questions:
        raise ValueError(
            f"fact {fact.fact_id} ({code}): CLM-Bench's layout needs a paraphrase and a locality question, found {len(paraphrases)} and "
            f"{len(questions)}; prepare probes of both kinds, or leave the fact out"
        )
    return {
        "case_id": number,
        "prompt": request.prompt,
        "target_new": request.target_new,
        "subject": request.subject,
        "ground_truth": request.target_true,
        "rephrase_prompt": paraphrases[0],
        "loc": questions[0][0],
        "loc_ans": questions[0][1],
    }


def _counterfact_row(fact: FactRecords, code: str, number: int) -> dict[str, Any]:
    request, paraphrases, questions = _request(fact, code), _paraphrases(fact, code), _asked(fact, code, "locality")
    start, end = request.subject_span
    first, answer = questions[0] if questions else (None, None)
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": _escaped(request.prompt[:start]) + "{}" + _escaped(request.prompt[end:]),
            "subject": request.subject,
            "target_new": {"str": request.target_new},
            "target_true": {"str": request.target_true},
        },
        "paraphrase_prompts": paraphrases,
        "neighborhood_prompts": [question for question, truth in questions if truth == request.target_true],
        "attribute_prompts": [],
        "generation_prompts": [],
        "prompt": request.prompt,
        "subject": request.subject,
        "target_new": request.target_new,
        "ground_truth": request.target_true,
        "rephrase_prompt": paraphrases[0] if paraphrases else None,
        "locality_prompt": first,
        "locality_ground_truth": answer,
    }


def _request(fact: FactRecords, code: str) -> EditRequest:
    if code not in fact.requests:
        raise ValueError(f"fact {fact.fact_id}: no language {code!r}; it has: {', '.join(fact.requests)}; prepare it in that language, too")
    return fact.requests[code]


def _asked(fact: FactRecords, code: str, kind: Kind) -> list[tuple[str, str]]:
    return [(probe.prompt, probe.target_true) for probe in fact.probes[code] if probe.kind == kind]


def _paraphrases(fact: FactRecords, code: str) -> list[str]:
    reworded = [fact.rewordings[code].prompt] if code in fact.rewordings else []
    return [prompt for prompt, _truth in _asked(fact, code, "paraphrase")] or reworded


def _escaped(text: str) -> str:
    """Return a text that ``str.format`` gives back unchanged."""
    return text.replace("{", "{{").replace("}", "}}")
