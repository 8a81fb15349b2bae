"""A context tells the new fact after the same demonstrations for every fact, in the languages of the edit."""

import msgspec
import pytest

from tests.tiny import REQUESTS
from xledit.editing.methods.ike import Ike
from xledit.records import Demonstration, EditRequest


def demonstration(number: int, code: str, new_fact: str, prompt: str, answer: str) -> Demonstration:
    return Demonstration(fact_id=f"river-{number}", language=code, new_fact=new_fact, prompt=prompt, answer=answer)


DEMONSTRATIONS = {
    "zh": [demonstration(1, "zh", "黄河在欧洲。", "黄河在", "欧洲"), demonstration(2, "zh", "恒河在法国。", "写信的人叫《", "红楼梦")],
    "en": [
        demonstration(1, "en", "The Yellow River is in Europe.", "The Yellow River is in", "Europe"),
        demonstration(2, "en", "The Ganges is in France.", "The Volga is in", "Russia"),
    ],
}
ZH = [request for request in REQUESTS if request.language == "zh"]
EN = [msgspec.structs.replace(request, fact_id=other.fact_id, language="en") for request, other in zip(REQUESTS[1::2], ZH, strict=True)]


def contexts(number: int, requests: list[EditRequest]) -> dict[str, str]:
    return Ike(demonstrations=number).contexts(requests, DEMONSTRATIONS)


def test_english_demonstrations_come_before_the_new_fact() -> None:
    assert contexts(2, EN)["fact-0"] == (
        "New Fact: The Yellow River is in Europe.\nPrompt: The Yellow River is in Europe.\n\n"
        "New Fact: The Ganges is in France.\nPrompt: The Volga is in Russia.\n\n"
        "New Fact: The capital of France is Tokyo.\n"
    )


def test_chinese_is_joined_ended_and_labelled_as_chinese_and_an_open_bracket_is_closed() -> None:
    assert contexts(2, ZH)["fact-0"] == (
        "新事实：黄河在欧洲。\n提示：黄河在欧洲。\n\n新事实：恒河在法国。\n提示：写信的人叫《红楼梦》。\n\n新事实：法国的首都是东京。\n"
    )


def test_an_edit_in_several_languages_shows_and_tells_in_each() -> None:
    assert contexts(1, ZH + EN)["fact-2"] == (
        "新事实：黄河在欧洲。\n提示：黄河在欧洲。\n\n"
        "New Fact: The Yellow River is in Europe.\nPrompt: The Yellow River is in Europe.\n\n"
        "新事实：写了《红楼梦》的人鲁迅。\nNew Fact: Born in Ulm: Einstein Bohr.\n"
    )


@pytest.mark.parametrize("requests", [ZH, EN, ZH + EN, EN + ZH], ids=["zh", "en", "both", "the other way round"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_contexts_of_all_facts_differ_in_the_new_fact_only(requests: list[EditRequest], number: int) -> None:
    found = contexts(number, requests)
    assert list(found) == ["fact-0", "fact-2"]
    told = contexts(0, requests)
    assert all(context.endswith(told[fact_id]) for fact_id, context in found.items())
    assert len({context.removesuffix(told[fact_id]) for fact_id, context in found.items()}) == 1


def test_the_order_of_the_facts_changes_no_context() -> None:
    assert contexts(2, ZH[::-1] + EN) == contexts(2, ZH + EN)


def test_the_first_demonstrations_are_shown_and_none_are_needed_for_none() -> None:
    assert contexts(2, EN)["fact-0"].startswith(contexts(1, EN)["fact-0"].partition("New Fact: The capital")[0])
    assert Ike(demonstrations=0).contexts(EN, {})["fact-0"] == "New Fact: The capital of France is Tokyo.\n"


def test_no_requests_have_no_contexts() -> None:
    assert contexts(2, []) == {}


def test_fewer_demonstrations_than_asked_for_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"demonstrations is 3, but only 2 are prepared in 'zh'; raise data\.demonstrations or show fewer"):
        contexts(3, ZH)
    with pytest.raises(ValueError, match="demonstrations is 1, but only 0 are prepared in 'en'"):
        Ike(demonstrations=1).contexts(ZH + EN, {"zh": DEMONSTRATIONS["zh"]})


def test_a_fact_without_a_language_of_the_edit_is_an_error() -> None:
    with pytest.raises(ValueError, match="fact fact-2 has no request in 'en', as other facts of the edit have; "):
        contexts(0, ZH + EN[:1])


def test_a_fact_that_is_there_twice_in_a_language_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"fact fact-0 \(zh\) is there twice"):
        contexts(0, [*ZH, ZH[0]])


def test_an_unknown_language_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown language 'xx'; known: zh, en, ja"):
        contexts(0, [msgspec.structs.replace(ZH[0], language="xx")])


def test_a_number_below_zero_is_refused_where_it_is_read() -> None:
    with pytest.raises(ValueError, match="demonstrations is -1; it must be at least 0"):
        msgspec.convert({"demonstrations": -1}, Ike)
