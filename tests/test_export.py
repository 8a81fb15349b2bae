"""Our facts leave in other tools' layouts: what comes back through the readers is what went out, and those tools' own checks hold."""

import json
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xledit import cli
from xledit.benchmark.export import MERGED, clm_rows, counterfact_rows
from xledit.benchmark.prepared import read_facts
from xledit.datasets import clm_bench, counterfact
from xledit.datasets.clm_bench import FILE_OF
from xledit.records import EditRequest, FactRecords, Probe
from xledit.storage import read_json, sha256, write_json

TEXTS = {
    "zh": ("{}的首都是", "{}的政府设在", "{}中央政府所在的城市叫做", "锡尔瓦尼亚的首都是", "谁造了那座桥", "石匠"),
    "en": (
        *("The capital of {} is", "{} is governed from", "The seat of government in {} is"),
        *("The capital of Sylvania is", "Who built it?", "a mason"),
    ),
}
SUBJECTS = {"zh": ("鲁里坦尼亚", "埃尔伯尼亚"), "en": ("Ruritania", "Elbonia")}
ANSWERS = {"zh": ("新城", "旧城"), "en": ("Newtown", "Oldtown")}


def fact(number: int) -> FactRecords:
    """A fact in both languages, with a neighbour of the same true answer and a question about something else."""
    requests, rewordings, probes = {}, {}, {}
    for code, (prompt, reworded, paraphrase, neighbour, question, answer) in TEXTS.items():
        subject, (new, true) = SUBJECTS[code][number], ANSWERS[code]
        answers = {"fact_id": f"city-{number}", "language": code, "target_new": new, "target_true": true}
        for found, text in ((requests, prompt), (rewordings, reworded)):
            start = text.index("{}")
            found[code] = EditRequest(prompt=text.format(subject), subject_span=(start, start + len(subject)), **answers)
        probes[code] = (
            Probe(kind="efficacy", prompt=prompt.format(subject), **answers),
            Probe(kind="paraphrase", prompt=paraphrase.format(subject), **answers),
            Probe(kind="locality", prompt=question, **answers | {"target_true": answer}),
            Probe(kind="locality", prompt=neighbour, **answers),
        )
    return FactRecords(fact_id=f"city-{number}", requests=requests, rewordings=rewordings, probes=probes)


FACTS = [fact(0), fact(1)]


def without(found: FactRecords, *kinds: str) -> FactRecords:
    """The fact without probes of some kinds, and without rewordings."""
    probes = {code: tuple(probe for probe in asked if probe.kind not in kinds) for code, asked in found.probes.items()}
    return msgspec.structs.replace(found, probes=probes, rewordings={})


def bare(request: EditRequest) -> EditRequest:
    """The request without its id, which the layouts do not have."""
    return msgspec.structs.replace(request, fact_id="")


def test_clm_rows_come_back_as_the_same_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {}
    for name, rows in clm_rows(FACTS).items():
        write_json(tmp_path / name, rows)
        hashes[name] = sha256(tmp_path / name)
    monkeypatch.setattr(clm_bench, "FILES", hashes)
    back, audit = clm_bench.read(tmp_path, ("zh", "en"))
    assert audit.dropped == {}
    for ours, theirs in zip(FACTS, back, strict=True):
        assert {code: bare(request) for code, request in theirs.requests.items()} == {
            code: bare(request) for code, request in ours.requests.items()
        }
        for code, asked in theirs.probes.items():
            wanted = [(probe.kind, probe.prompt, probe.target_true) for probe in ours.probes[code][:3]]
            assert [(probe.kind, probe.prompt, probe.target_true) for probe in asked] == wanted


def test_clm_rows_have_the_released_files_names_and_keys() -> None:
    files = clm_rows(FACTS)
    assert set(files) == set(clm_bench.FILES)
    plain = ["case_id", "prompt", "target_new", "subject", "ground_truth", "rephrase_prompt", "loc", "loc_ans"]
    assert all(list(row) == plain for name in (FILE_OF["zh"], MERGED) for row in files[name])
    prefixed = [name if name in ("case_id", "loc", "loc_ans") else f"english_{name}" for name in plain]
    assert all(list(row) == prefixed for row in files[FILE_OF["en"]])
    assert [row["prompt"] for row in files[MERGED]] == [fact.requests[code].prompt for fact in FACTS for code in ("zh", "en")]
    assert [row["case_id"] for row in files[MERGED]] == [1, 1, 2, 2]


def test_a_fact_that_clm_benchs_layout_cannot_hold_is_an_error_with_its_id() -> None:
    with pytest.raises(ValueError, match=r"fact city-1 \(zh\): .* found 1 and 0"):
        clm_rows([FACTS[0], without(FACTS[1], "locality")])
    with pytest.raises(ValueError, match=r"fact city-0 \(zh\): .* found 0 and 2"):
        clm_rows([without(FACTS[0], "paraphrase")])
    english = msgspec.structs.replace(FACTS[0], requests={"en": FACTS[0].requests["en"]})
    with pytest.raises(ValueError, match="fact city-0: no language 'zh'; it has: en"):
        clm_rows([english])


def test_a_fact_without_paraphrase_is_asked_in_its_rewording() -> None:
    only = msgspec.structs.replace(without(FACTS[0], "paraphrase"), rewordings=FACTS[0].rewordings)
    assert clm_rows([only])[FILE_OF["zh"]][0]["rephrase_prompt"] == "鲁里坦尼亚的政府设在"


def test_counterfact_rows_have_what_memit_and_easyedit_read() -> None:
    for code in ("zh", "en"):
        for number, (ours, row) in enumerate(zip(FACTS, counterfact_rows(FACTS, code), strict=True)):
            request, edit = ours.requests[code], row["requested_rewrite"]
            assert row["case_id"] == number and edit["prompt"].count("{}") == 1
            assert edit["prompt"].format(edit["subject"]) == row["prompt"] == request.prompt and row["subject"] in row["prompt"]
            assert edit["target_new"] == {"str": request.target_new} and row["target_new"] == request.target_new
            assert edit["target_true"] == {"str": request.target_true} and row["ground_truth"] == request.target_true
            assert row["paraphrase_prompts"] == [row["rephrase_prompt"]] == [ours.probes[code][1].prompt]
            assert row["attribute_prompts"] == row["generation_prompts"] == []


def test_only_neighbours_with_the_true_answer_are_neighborhood_prompts() -> None:
    row = counterfact_rows(FACTS, "en")[0]
    assert row["neighborhood_prompts"] == ["The capital of Sylvania is"]
    assert (row["locality_prompt"], row["locality_ground_truth"]) == ("Who built it?", "a mason")


def test_what_a_fact_does_not_have_is_an_empty_list_and_null() -> None:
    row = counterfact_rows([without(FACTS[0], "paraphrase", "locality")], "en")[0]
    assert row["paraphrase_prompts"] == row["neighborhood_prompts"] == []
    assert row["rephrase_prompt"] is row["locality_prompt"] is row["locality_ground_truth"] is None


def test_a_language_that_a_fact_does_not_have_is_an_error_with_its_id() -> None:
    with pytest.raises(ValueError, match="fact city-0: no language 'ja'; it has: zh, en"):
        counterfact_rows(FACTS, "ja")


text = st.text(st.sampled_from("ab {}'王国"), max_size=6)


@settings(max_examples=80)
@given(before=text, after=text, subject=text.filter(str.strip), target=text.filter(str.strip))
def test_counterfact_rows_come_back_as_the_same_requests_and_probes(before: str, after: str, subject: str, target: str) -> None:
    answers = {"fact_id": "counterfact-0", "language": "en", "target_new": target, "target_true": "the truth"}
    span = (len(before), len(before) + len(subject))
    request = EditRequest(prompt=before + subject + after, subject_span=span, **answers)
    asked = (
        Probe(kind="efficacy", prompt=request.prompt, **answers),
        Probe(kind="paraphrase", prompt=f"{{}} {after}{subject}", **answers),
        Probe(kind="locality", prompt="{neighbour} is", **answers),
    )
    ours = FactRecords(fact_id="counterfact-0", requests={"en": request}, rewordings={}, probes={"en": asked})
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "counterfact.json"
        path.write_text(json.dumps(counterfact_rows([ours], "en")), encoding="utf-8")
        back, audit = counterfact.read(path, ["en"])
    assert audit.dropped == {}
    assert back[0].requests == ours.requests and back[0].probes == ours.probes


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What stages/editing/prepare.py writes; one fact has no rewording."""
    for code in TEXTS:
        write_json(tmp_path / "requests" / f"{code}.json", [fact.requests[code] for fact in FACTS])
        write_json(tmp_path / "rewordings" / f"{code}.json", [FACTS[1].rewordings[code]])
        write_json(tmp_path / "probes" / f"{code}.json", [probe for fact in FACTS for probe in fact.probes[code]])
    return tmp_path


def run(prepared: Path, to: str) -> Path:
    cli.export(to=to, out=prepared / "out", artifacts=prepared)  # pyright: ignore[reportArgumentType]
    return prepared / "out"


def test_the_command_reads_what_prepare_wrote(prepared: Path) -> None:
    facts = read_facts(prepared / "requests", prepared / "rewordings", prepared / "probes")
    assert facts == [msgspec.structs.replace(FACTS[0], rewordings={}), FACTS[1]]


def test_the_command_writes_each_layouts_files(prepared: Path) -> None:
    clm, cf = clm_rows(FACTS), {code: counterfact_rows(FACTS, code) for code in TEXTS}
    out = run(prepared, "clm_bench")
    assert {path.name: read_json(path, list[dict]) for path in out.iterdir()} == clm
    out = run(prepared, "counterfact")
    assert {path.parent.name: read_json(path, list[dict]) for path in out.glob("*/multi_counterfact.json")} == cf


def test_the_command_says_what_is_missing(prepared: Path) -> None:
    write_json(prepared / "requests" / "en.json", [FACTS[0].requests["en"]])
    with pytest.raises(ValueError, match=r"en\.json and zh\.json are of different facts"):
        run(prepared, "counterfact")
    (prepared / "probes" / "zh.json").unlink()
    with pytest.raises(ValueError, match=r"probes/zh\.json: not found"):
        run(prepared, "counterfact")
    with pytest.raises(ValueError, match="has no requests"):
        read_facts(prepared / "nothing", prepared, prepared)
