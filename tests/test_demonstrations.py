"""Demonstrations come from facts that have nothing to do with the edits: the same in every language, in IKE's three kinds."""

import itertools
from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
import pytest

from stages.editing import prepare
from tests.small_benchmark import BOTH, PROBES, read
from xledit.benchmark import read as benchmark
from xledit.benchmark.read import Choice
from xledit.benchmark.tables import Fact, read_tables
from xledit.datasets.demonstrations import draw
from xledit.languages import language
from xledit.params import section
from xledit.records import Demonstration, EditRequest, FactRecords, Probe
from xledit.storage import read_json

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data" / "benchmark"
RELATIONS = {relation.name: relation for relation in read_tables(FOLDER, BOTH)}
TABLE = {fact.fact_id: fact for relation in RELATIONS.values() for fact in relation.facts}
ASKED: dict[tuple[str, str], list[Fact]] = {}  # by language and native prompt: the facts that it asks for
for relation in RELATIONS.values():
    for each, (code, wordings) in itertools.product(relation.facts, relation.wordings.items()):
        for template in wordings.native:
            ASKED.setdefault((code, template.worded(each.subjects[code])[0]), []).append(each)
RUNS = (("test", "both", 17), ("dev", "first", 18), ("all", "last", 19))
Run = tuple[list[FactRecords], list[FactRecords]]


@cache
def a_run(split: str, order: str, seed: int, num_facts: int = 60) -> Run:
    """The facts that a run edits and those that it can show."""
    settings = {"split": split, "order": order, "world_knowledge": False, "probes": PROBES}
    edited, _audit = read(FOLDER, num_facts=num_facts, seed=seed, **settings)
    return edited, benchmark.spare(FOLDER, BOTH, Choice(**settings), edited, seed=seed)  # pyright: ignore[reportArgumentType]


@pytest.fixture(params=RUNS, ids=lambda run: "-".join(map(str, run)))
def run(request: pytest.FixtureRequest) -> Run:
    return a_run(*request.param)


def asked_of(shown: Demonstration) -> Fact:
    (found,) = ASKED[shown.language, shown.prompt]
    return found


def kind(shown: Demonstration) -> str:
    if shown.new_fact.startswith(shown.prompt):
        return "copy"
    return "update" if asked_of(shown).fact_id == shown.fact_id else "retain"


def drawn(run: Run, number: int = 8, seed: int = 17) -> dict[str, list[Demonstration]]:
    edited, others = run
    return draw(others, edited, BOTH, number, seed)


def everything(run: Run) -> list[Demonstration]:
    """All that any seed may draw."""
    return [shown for seed in range(10) for found in drawn(run, 16, seed).values() for shown in found]


# of our own benchmark


def test_demonstrations_are_of_dev_and_of_no_subject_that_is_edited(run: Run) -> None:
    edited = {fact.fact_id for fact in run[0]}
    names = {name for fact_id in edited for name in TABLE[fact_id].subject_names}
    for shown in everything(run):
        for fact in (TABLE[shown.fact_id], asked_of(shown)):
            assert RELATIONS[fact.relation].split == "dev"
            assert fact.fact_id not in edited
            assert not fact.subject_names & names


def test_nothing_that_is_asked_is_shown(run: Run) -> None:
    texts = "\n".join(text.casefold() for fact in run[0] for text in fact.texts)
    for shown in everything(run):
        for name in TABLE[shown.fact_id].subject_names | asked_of(shown).subject_names:
            assert name.casefold() not in texts


def test_new_facts_are_false_sentences_and_what_is_retained_is_true(run: Run) -> None:
    for shown in everything(run):
        fact, row = TABLE[shown.fact_id], language(shown.language)
        answers = {other.objects[shown.language] for other in RELATIONS[fact.relation].facts}
        told = [
            answer
            for answer in answers
            for template in RELATIONS[fact.relation].wordings[shown.language].native
            if shown.new_fact == row.sentence(template.worded(fact.subjects[shown.language])[0], answer)
        ]
        assert len(told) == 1
        assert told != [fact.objects[shown.language]]
        asked = asked_of(shown)
        assert shown.answer == (asked.objects[shown.language] if kind(shown) == "retain" else told[0])
        assert (asked == fact) == (kind(shown) != "retain")


def test_languages_show_the_same_facts_kinds_and_questions(run: Run) -> None:
    for seed in range(10):
        for zh, en in zip(*drawn(run, 16, seed).values(), strict=True):
            assert (zh.language, en.language) == BOTH
            assert (zh.fact_id, kind(zh)) == (en.fact_id, kind(en))
            assert asked_of(zh) == asked_of(en)


@pytest.mark.parametrize("number", range(17))
def test_kinds_are_one_to_three_to_four_as_near_as_the_number_allows(number: int) -> None:
    counts = Counter(map(kind, drawn(a_run(*RUNS[0]), number)["en"]))
    assert counts.total() == number
    for name, share in (("copy", 1), ("update", 3), ("retain", 4)):
        assert abs(counts[name] - number * share / 8) < 1


def test_a_seed_draws_the_same_and_another_seed_other_facts_in_another_order(run: Run) -> None:
    assert drawn(run, seed=3) == drawn(run, seed=3)
    orders = {tuple(map(kind, drawn(run, seed=seed)["zh"])) for seed in range(10)}
    assert len(orders) > 5
    assert len({shown.fact_id for shown in drawn(run, seed=3)["zh"] + drawn(run, seed=4)["zh"]}) > 8


def test_no_fact_is_shown_twice(run: Run) -> None:
    for seed in range(10):
        assert len({shown.fact_id for shown in drawn(run, 16, seed)["zh"]}) == 16


def test_prepare_writes_the_same_bytes_again_for_each_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("once", "again"):
        prepare.main(tmp_path / name, tmp_path / name / "audit.json")
    for code in section("grid.languages", tuple[str, ...]):
        once, again = (tmp_path / name / "demonstrations" / f"{code}.json" for name in ("once", "again"))
        assert once.read_bytes() == again.read_bytes()
        found = read_json(once, list[Demonstration])
        assert [shown.language for shown in found] == [code] * section("data.demonstrations", int)


# of any data set


def fact(
    name: str, number: int, *, rewording: str = "{} is said to have", locality: str = "Who painted picture {}?", new: str = "new"
) -> FactRecords:
    """A fact about ``name``, in both languages, with a question about something else."""
    requests, rewordings, probes = {}, {}, {}
    for code in BOTH:
        subject = f"{name}-{code}"
        answers = {"fact_id": name, "language": code, "target_new": f"{new} {number}", "target_true": f"true {number}"}
        requests[code] = EditRequest(prompt=f"{subject} has", subject_span=(0, len(subject)), **answers)
        if rewording:
            rewordings[code] = EditRequest(prompt=rewording.format(subject), subject_span=(0, len(subject)), **answers)
        asked = [(kind, prompt) for kind, prompt in (("efficacy", f"{subject} has"), ("locality", locality.format(number))) if prompt]
        probes[code] = tuple(Probe(kind=kind, prompt=prompt, **answers) for kind, prompt in asked)  # pyright: ignore[reportArgumentType]
    return FactRecords(fact_id=name, requests=requests, rewordings=rewordings, probes=probes)


EDITED = [fact("Edited", 0, new="Fay-en")]
NAMES = ("Alba", "Bede", "Cade", "Dora")
OTHERS = [fact(name, number) for number, name in enumerate(NAMES, 1)]


def shown_of(others: list[FactRecords], number: int, seed: int = 17) -> set[str]:
    return {shown.fact_id for shown in draw(others, EDITED, BOTH, number, seed)["en"]}


def test_facts_that_are_edited_are_not_shown() -> None:
    for seed, number in itertools.product(range(10), range(5)):
        assert shown_of([*EDITED, *OTHERS], number, seed) <= set(NAMES)
    assert shown_of([*EDITED, *OTHERS], 4) == set(NAMES)


@pytest.mark.parametrize(
    "unfit",
    [
        fact("Eric", 5, rewording=""),
        fact("Eric", 5, locality=""),
        fact("Edited", 5),
        msgspec.structs.replace(fact("Edited", 5), fact_id="Eric"),
        fact("Fay", 5),
        fact("Eric", 5, locality="What has edited-zh to do with picture {}?"),
        fact("Eric", 5, rewording="Unlike Edited-en, {} has"),
        fact("Eric", 5, locality="Who painted picture 0?"),
    ],
    ids=[
        "no rewording",
        "no locality question",
        "edited",
        "an edited subject",
        "a subject that is an answer",
        "asks about an edited subject",
        "speaks of an edited subject",
        "asks what is asked",
    ],
)
def test_a_fact_that_lacks_a_kind_or_has_to_do_with_the_edits_is_not_shown(unfit: FactRecords) -> None:
    assert shown_of([*OTHERS, unfit], 4) == set(NAMES)
    with pytest.raises(
        ValueError, match=r"data\.demonstrations is 5, but only 4 facts can be shown beside the 1 edited ones; ask for fewer"
    ):
        shown_of([*OTHERS, unfit], 5)


def test_none_are_drawn_where_none_are_asked_for() -> None:
    assert draw([], EDITED, BOTH, 0, 17) == {"zh": [], "en": []}


def test_a_negative_number_is_refused() -> None:
    settings = {"split": "test", "order": "both", "world_knowledge": False, "probes": {}, "source": "benchmark"}
    rest = {"clm_bench_dir": "x", "clm_bench_url": "x", "path": "x", "skip_facts": 0}
    with pytest.raises(ValueError, match=r"data\.demonstrations is -1; it must be at least 0"):
        prepare.DataParams(**settings, **rest, demonstrations=-1)
