"""Records refuse what cannot be edited or asked, in words that name the fact, and survive JSON."""

import msgspec
import pytest

from tests.test_metrics import scored
from xledit.records import Demonstration, EditRequest, FactRecords, Probe, Score

REQUEST = EditRequest(
    fact_id="capital-001", language="zh", prompt="众所周知，法国的首都是", subject_span=(5, 7), target_new="罗马", target_true="巴黎"
)
PROBE = Probe(fact_id="capital-001", language="en", kind="locality", prompt="Egypt has", target_new="Rome", target_true="Cairo")

DEMONSTRATION = Demonstration(
    fact_id="capital-002", language="en", new_fact="Egypt's capital is Lima.", prompt="Egypt is ruled from", answer="Lima"
)


def changed(record: EditRequest | Probe, **changes: object) -> EditRequest | Probe:
    return type(record)(**msgspec.structs.asdict(record) | changes)


def test_the_subject_is_a_span_of_characters() -> None:
    assert (REQUEST.subject, REQUEST.up_to_subject) == ("法国", "众所周知，法国")


@pytest.mark.parametrize("span", [(-1, 2), (3, 3), (7, 5), (5, 99), (99, 100)])
def test_a_span_outside_the_prompt_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"capital-001 \(zh\): subject span .* is not inside the prompt"):
        changed(REQUEST, subject_span=span)


def test_a_span_may_be_the_whole_prompt() -> None:
    whole = changed(REQUEST, subject_span=(0, len(REQUEST.prompt)))
    assert whole.subject == whole.up_to_subject == REQUEST.prompt


@pytest.mark.parametrize("record", [REQUEST, PROBE], ids=["request", "probe"])
@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
@pytest.mark.parametrize("target", ["target_new", "target_true"])
def test_a_blank_target_is_refused(record: EditRequest | Probe, target: str, blank: str) -> None:
    with pytest.raises(ValueError, match=rf"capital-001 \({record.language}\): {target} is empty; "):
        changed(record, **{target: blank})


@pytest.mark.parametrize("record", [REQUEST, PROBE], ids=["request", "probe"])
@pytest.mark.parametrize("padding", ["", " "])
def test_an_edit_needs_another_answer_than_the_true_one(record: EditRequest | Probe, padding: str) -> None:
    with pytest.raises(ValueError, match=r"capital-001 .* are both .* needs another answer"):
        changed(record, target_new=record.target_true + padding)


@pytest.mark.parametrize("blank", ["", "\u3000"])
@pytest.mark.parametrize("name", ["new_fact", "prompt", "answer"])
def test_a_demonstration_shows_something(name: str, blank: str) -> None:
    with pytest.raises(ValueError, match=rf"capital-002 \(en\): the {name} of a demonstration is empty"):
        Demonstration(**msgspec.structs.asdict(DEMONSTRATION) | {name: blank})


def test_the_texts_of_a_fact_are_all_its_prompts_and_answers() -> None:
    fact = FactRecords(fact_id="capital-001", requests={"zh": REQUEST}, rewordings={}, probes={"en": (PROBE,)})
    assert fact.texts == ["众所周知，法国的首都是", "罗马", "巴黎", "Egypt has", "Rome", "Cairo"]


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_probe_asks_something(blank: str) -> None:
    with pytest.raises(ValueError, match=r"capital-001 \(en\): the prompt of a locality probe is empty"):
        changed(PROBE, prompt=blank)


@pytest.mark.parametrize(
    "record",
    [
        REQUEST,
        PROBE,
        scored(),
        scored(generated=None),
        DEMONSTRATION,
        FactRecords(fact_id="capital-001", requests={"zh": REQUEST}, rewordings={}, probes={"en": (PROBE,)}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_survive_json(record: EditRequest | Probe | Score | Demonstration | FactRecords) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


@pytest.mark.parametrize(
    ("change", "where"),
    [({"kind": "speed"}, "kind"), ({"prompt": 3}, "prompt"), ({"colour": "red"}, "colour"), ({"target_new": " "}, "target_new")],
)
def test_json_that_is_not_a_record_is_refused_by_the_name_of_its_field(change: dict[str, object], where: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=where):
        msgspec.convert(msgspec.to_builtins(PROBE) | change, Probe)


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        REQUEST.prompt = "?"
