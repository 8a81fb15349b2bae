"""CLM-Bench is read as released: on small files made here, and against the counts of the fact sheet where the data are."""

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from xledit.datasets import clm_bench
from xledit.datasets.clm_bench import CHECKS, FILE_OF
from xledit.records import Audit, FactRecords
from xledit.storage import sha256

SHARED = Path(__file__).parents[2] / "shared" / "clm-bench"
MERGED = "merged_alternate_fields_no_english.json"
BOTH = ("zh", "en")
Changes = Mapping[int, Mapping[str, object]]

PLACES = {"zh": ("法国", "埃及", "日本", "秘鲁"), "en": ("France", "Egypt", "Japan", "Peru")}
TRUTHS = {"zh": ("巴黎", "开罗", "东京", "利马"), "en": ("Paris", "Cairo", "Tokyo", "Lima")}
TARGETS = {"zh": ("罗马", "柏林", "雅典", "首尔"), "en": ("Rome", "Berlin", "Athens", "Seoul")}
TEXTS = {
    "zh": ("{}的首都是", "{}中央政府所在的城市叫做", "谁写了第{}本书", "作者{}"),
    "en": ("The capital of {} is", "The seat of government in {} lies in", "nq question: who wrote book {}", "author {}"),
}


def clean_row(code: str, number: int) -> dict[str, object]:
    """A row without a defect, in the words of the data's files."""
    prompt, paraphrase, question, answer = TEXTS[code]
    place = PLACES[code][number]
    return {
        "case_id": number + 1,
        "prompt": prompt.format(place),
        "target_new": TARGETS[code][number],
        "subject": place,
        "ground_truth": TRUTHS[code][number],
        "rephrase_prompt": paraphrase.format(place),
        "loc": question.format(number),
        "loc_ans": answer.format(number),
    }


def file_row(code: str, row: dict[str, object]) -> dict[str, object]:
    shared = ("case_id", "loc", "loc_ans")
    return {name if code == "zh" or name in shared else f"english_{name}": value for name, value in row.items()}


class Files:
    """The data set's folder, with the hashes of what is written there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        monkeypatch.setattr(clm_bench, "FILES", self.hashes)
        self.write(MERGED, b"[]")
        for code in BOTH:
            self.plant(code, {})

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self.hashes[name] = sha256(self.folder / name)

    def plant(self, code: str, changes: Changes) -> None:
        rows = [file_row(code, {**clean_row(code, number), **changes.get(number, {})}) for number in range(4)]
        self.write(FILE_OF[code], json.dumps(rows, ensure_ascii=False).encode())

    def read(self, languages: tuple[str, ...] = BOTH) -> tuple[list[FactRecords], Audit]:
        return clm_bench.read(self.folder, languages)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


# check, language of the changed file, changes by row, rows (or groups, pairs) then found
DEFECTS: list[tuple[str, str, Changes, int]] = [
    ("string_ids", "zh", {2: {"case_id": "3"}}, 1),
    ("duplicated_ids", "en", {2: {"case_id": "1"}, 3: {"case_id": "2"}}, 2),
    ("null_truths", "en", {1: {"ground_truth": None}}, 1),
    ("empty_fields", "zh", {1: {"ground_truth": ""}, 2: {"ground_truth": None}}, 1),
    ("subject_not_in_prompt", "en", {0: {"subject": "Spain"}}, 1),
    ("subject_not_in_paraphrase", "en", {0: {"rephrase_prompt": "It is"}, 1: {"rephrase_prompt": "In EGYPT it is"}}, 1),
    ("subject_is_whole_prompt", "zh", {0: {"prompt": "法国是"}, 1: {"prompt": "埃及"}}, 2),
    ("subject_is_whole_prompt", "en", {0: {"prompt": "The France is"}, 1: {"prompt": "Egypt rules"}}, 1),
    ("target_equals_truth", "en", {0: {"target_new": " paris "}}, 1),
    ("target_inside_truth", "en", {0: {"ground_truth": "Rome City"}, 1: {"ground_truth": "Berlin"}}, 1),
    ("truth_inside_target", "en", {0: {"target_new": "Paris Hill"}, 1: {"ground_truth": None}}, 1),
    ("truth_in_prompt", "en", {0: {"ground_truth": "Capital"}, 1: {"ground_truth": None}}, 1),
    ("paraphrase_equals_prompt", "zh", {0: {"rephrase_prompt": "法国的首都是"}}, 1),
    ("paraphrase_similarity_above_90", "en", {0: {"rephrase_prompt": "The capitol of France is"}}, 1),
    ("paraphrase_similarity_above_80", "en", {0: {"rephrase_prompt": "The old capital of France is"}}, 1),
    ("paraphrase_is_another_prompt", "zh", {0: {"rephrase_prompt": "埃及的首都是"}, 2: {"rephrase_prompt": "日本的首都是"}}, 1),
    ("same_paraphrase_other_target", "zh", {0: {"rephrase_prompt": "答案是"}, 1: {"rephrase_prompt": "答案是"}}, 1),
    (
        "contradictory_edits",
        "en",
        {0: {"ground_truth": "Nice"}, 1: {"ground_truth": "Nice", "rephrase_prompt": "The capital of France is"}},
        1,
    ),
    ("duplicate_prompts", "zh", {1: {"prompt": "法国的首都是"}, 2: {"prompt": "法国的首都是"}}, 3),
    ("duplicate_prompt_groups", "zh", {1: {"prompt": "法国的首都是"}, 2: {"prompt": "法国的首都是"}}, 1),
    ("near_duplicate_prompt_pairs", "en", {1: {"prompt": "The capitol of France is"}, 2: {"prompt": "The capital of France is"}}, 3),
    ("repeated_subjects", "en", {1: {"subject": "FRANCE"}}, 2),
    ("repeated_subject_groups", "en", {1: {"subject": "FRANCE"}}, 1),
    ("repeated_targets", "en", {1: {"target_new": "rome"}, 2: {"target_new": "Rome"}}, 3),
    ("repeated_target_groups", "en", {1: {"target_new": "rome"}, 2: {"target_new": "Rome"}}, 1),
    ("chinese_in_english_fields", "en", {1: {"ground_truth": "Cairo 开罗", "prompt": "埃及 Egypt is"}}, 1),
    ("locality_question_foreign", "zh", {0: {"loc": "who wrote it"}, 1: {"loc": "谁写了 Faust"}}, 1),
    ("locality_question_mixed", "zh", {0: {"loc": "who wrote it"}, 1: {"loc": "谁写了 Faust"}}, 1),
    ("locality_answer_foreign", "zh", {0: {"loc_ans": "Goethe"}, 1: {"loc_ans": "1999"}}, 1),
    ("locality_answer_mixed", "zh", {0: {"loc_ans": "歌德 Goethe"}, 1: {"loc_ans": "1999年"}}, 1),
    ("locality_answer_digits_only", "zh", {0: {"loc_ans": "00,16"}, 1: {"loc_ans": "1999年"}}, 1),
    ("locality_not_own_language", "zh", {0: {"loc": "who"}, 1: {"loc_ans": "1999"}, 2: {"loc": "谁 Faust"}}, 3),
    ("locality_prefixed", "zh", {0: {"loc": "nq question: 谁"}}, 1),
    ("locality_repeated", "zh", {1: {"loc": "谁写了第0本书"}}, 1),
    ("locality_padded", "en", {1: {"loc": "who wrote it "}}, 1),
    ("subject_first", "en", {1: {"prompt": "Egypt has its capital in"}}, 1),
    ("key_collisions", "zh", {1: {"subject": "法国", "prompt": "法国的国歌是"}, 2: {"subject": "法国", "prompt": "法国的国旗是"}}, 3),
    ("key_collision_groups", "zh", {1: {"subject": "法国", "prompt": "法国的国歌是"}}, 1),
]


@pytest.mark.parametrize(("check", "code", "changes", "wanted"), DEFECTS)
def test_a_planted_defect_is_counted_and_clean_rows_have_none(files: Files, check: str, code: str, changes: Changes, wanted: int) -> None:
    assert files.read()[1].defects[check][code] == 0
    files.plant(code, changes)
    assert files.read()[1].defects[check][code] == wanted


def test_words_after_the_subject_are_counted_in_english_only(files: Files) -> None:
    files.plant("en", {0: {"prompt": "France has its capital in"}})
    assert files.read()[1].defects["at_most_one_word_after_subject"] == {"en": 3}


def test_ids_and_locality_answers_are_compared_across_languages(files: Files) -> None:
    files.plant("en", {0: {"case_id": 9}, 1: {"loc_ans": "作者1"}, 2: {"case_id": "3"}})
    defects = files.read()[1].defects
    assert (defects["id_mismatches"], defects["locality_answer_same_in_all"]) == ({"all": 1}, {"all": 1})


def test_every_check_has_a_planted_defect() -> None:
    across_or_english = {"id_mismatches", "locality_answer_same_in_all", "at_most_one_word_after_subject"}
    assert {check for check, *_rest in DEFECTS} | across_or_english == set(CHECKS)


def test_facts_are_paired_by_row_whatever_the_ids(files: Files) -> None:
    files.plant("en", {number: {"case_id": 4 - number} for number in range(4)})
    facts, audit = files.read()
    assert [fact.fact_id for fact in facts] == ["clm-0000", "clm-0001", "clm-0002", "clm-0003"]
    assert [(fact.requests["zh"].subject, fact.requests["en"].subject) for fact in facts] == list(zip(*PLACES.values(), strict=True))
    assert (audit.num_read, audit.num_selected, audit.dropped) == (4, 4, {})


def test_rows_that_cannot_be_edits_are_dropped_in_both_languages_with_the_reason(files: Files) -> None:
    files.plant("en", {0: {"ground_truth": None}, 1: {"target_new": "cairo "}})
    files.plant("zh", {2: {"subject": "中国"}})
    facts, audit = files.read()
    assert [fact.fact_id for fact in facts] == ["clm-0003"]
    assert audit.dropped == {
        "clm-0000": "null or empty truth (en)",
        "clm-0001": "target equals truth (en)",
        "clm-0002": "subject not in prompt (zh)",
    }
    assert (audit.num_read, audit.num_selected) == (4, 1)


def test_a_defect_of_a_language_that_was_not_asked_for_drops_nothing(files: Files) -> None:
    files.plant("en", {0: {"ground_truth": None}})
    facts, audit = files.read(("zh",))
    assert len(facts) == 4 and all(set(fact.requests) == {"zh"} for fact in facts)
    assert audit.defects["null_truths"] == {"zh": 0} and audit.defects["id_mismatches"] == {}


def test_spans_hit_the_first_occurrence_of_the_subject_in_any_case(files: Files) -> None:
    changes = {"subject": "The Nile", "prompt": "Near the Nile, the Nile is", "rephrase_prompt": "Rivers like the Nile are"}
    files.plant("en", {1: changes})
    fact = files.read()[0][1]
    assert fact.requests["en"].subject_span == (5, 13) and fact.requests["en"].subject == "the Nile"
    assert fact.rewordings["en"].subject_span == (12, 20) and fact.rewordings["en"].subject == "the Nile"


def test_a_paraphrase_is_a_rewording_only_with_its_subject_and_other_words(files: Files) -> None:
    files.plant("en", {0: {"rephrase_prompt": "The capital of France is"}, 1: {"rephrase_prompt": "There it is"}})
    facts = files.read()[0]
    assert [sorted(fact.rewordings) for fact in facts] == [["zh"], ["zh"], ["en", "zh"], ["en", "zh"]]
    assert [probe.prompt for probe in facts[1].probes["en"] if probe.kind == "paraphrase"] == ["There it is"]


def test_probes_ask_the_prompt_the_paraphrase_and_the_unrelated_question(files: Files) -> None:
    files.plant("en", {0: {"loc": "nq question: who wrote it ", "loc_ans": "Goethe"}})
    probes = files.read()[0][0].probes["en"]
    assert [(probe.kind, probe.prompt, probe.target_new, probe.target_true) for probe in probes] == [
        ("efficacy", "The capital of France is", "Rome", "Paris"),
        ("paraphrase", "The seat of government in France lies in", "Rome", "Paris"),
        ("locality", "nq question: who wrote it", "Rome", "Goethe"),
    ]


def test_a_locality_question_with_the_new_target_as_answer_is_left_out(files: Files) -> None:
    files.plant("zh", {0: {"loc_ans": "罗马 "}})
    fact = files.read()[0][0]
    assert [probe.kind for probe in fact.probes["zh"]] == ["efficacy", "paraphrase"]
    assert [probe.kind for probe in fact.probes["en"]] == ["efficacy", "paraphrase", "locality"]


def test_an_unknown_language_error_lists_those_there_are(files: Files) -> None:
    with pytest.raises(ValueError, match="no language 'th'; it has: zh, en"):
        files.read(("zh", "th"))


@pytest.mark.parametrize("name", [*FILE_OF.values(), MERGED])
def test_a_changed_file_error_names_it_and_both_hashes(files: Files, name: str) -> None:
    wanted = files.hashes[name]
    (files.folder / name).write_bytes(b"[ ]")
    found = sha256(files.folder / name)
    with pytest.raises(ValueError, match=f"{name}: SHA-256 is {found}, wanted {wanted}"):
        files.read()


def test_a_missing_file_error_names_it_and_the_setting(files: Files) -> None:
    (files.folder / FILE_OF["en"]).unlink()
    with pytest.raises(ValueError, match=f"{FILE_OF['en']}: not found; .*data.clm_bench_dir"):
        files.read()


@pytest.mark.parametrize("content", ['[{"prompt": "中国"}]'.encode("gbk"), b'[{"case_id": 1', b'{"case_id": 1}', b'[{"case_id": [1]}]'])
def test_an_unreadable_file_error_names_it(files: Files, content: bytes) -> None:
    files.write(FILE_OF["zh"], content)
    with pytest.raises(ValueError, match=FILE_OF["zh"]):
        files.read()


@pytest.mark.parametrize("code", BOTH)
def test_a_missing_field_error_names_file_field_and_row(files: Files, code: str) -> None:
    rows = [file_row(code, clean_row(code, number)) for number in range(4)]
    del rows[2]["prompt" if code == "zh" else "english_prompt"]
    files.write(FILE_OF[code], json.dumps(rows).encode())
    with pytest.raises(ValueError, match=rf"{FILE_OF[code]}: .*`prompt` - at `\$\[2\]`"):
        files.read()


def test_an_error_of_type_names_file_field_and_row(files: Files) -> None:
    files.plant("en", {3: {"target_new": None}})
    with pytest.raises(ValueError, match=rf"{FILE_OF['en']}: .*\$\[3\].target_new"):
        files.read()


def test_files_with_different_numbers_of_rows_cannot_be_paired(files: Files) -> None:
    files.write(FILE_OF["en"], json.dumps([file_row("en", clean_row("en", 0))]).encode())
    with pytest.raises(ValueError, match=f"{FILE_OF['zh']}': 4, '{FILE_OF['en']}': 1"):
        files.read()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Files, str]]:
    """The small files and the address of a server that has them."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    served = Files(tmp_path / "served", monkeypatch)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=served.folder)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield served, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_fetch_brings_all_files_in_silence(
    server: tuple[Files, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, url = server
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])  # a logger of its own, not below the root
    clm_bench.fetch(tmp_path / "new", url)
    assert {path.name: sha256(path) for path in (tmp_path / "new").iterdir()} == served.hashes
    assert len(clm_bench.read(tmp_path / "new", BOTH)[0]) == 4
    assert not caplog.records


def test_fetch_leaves_files_that_are_there(tmp_path: Path, files: Files) -> None:
    (tmp_path / MERGED).write_bytes(b"my own")
    clm_bench.fetch(tmp_path, "http://127.0.0.1:1")
    assert (tmp_path / MERGED).read_bytes() == b"my own"


def test_a_file_the_server_does_not_have_is_an_error_with_address_and_remedy(server: tuple[Files, str], tmp_path: Path) -> None:
    served, url = server
    (served.folder / FILE_OF["zh"]).unlink()
    with pytest.raises(ValueError, match=f"{FILE_OF['zh']}: not downloaded from {url}/{FILE_OF['zh']}: 404 .*data.clm_bench_dir"):
        clm_bench.fetch(tmp_path / "new", url)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MERGED]  # whole, from before the error


def test_a_file_with_other_content_is_an_error_and_leaves_nothing(server: tuple[Files, str], tmp_path: Path) -> None:
    served, url = server
    wanted = served.hashes[MERGED]
    (served.folder / MERGED).write_bytes(b"<html>")
    with pytest.raises(ValueError, match=f"{MERGED}: not downloaded from {url}/{MERGED}: .*{wanted}"):
        clm_bench.fetch(tmp_path / "new", url)
    assert not list((tmp_path / "new").iterdir())


def test_a_server_that_does_not_answer_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="check the network"):
        clm_bench.fetch(tmp_path, "http://127.0.0.1:1")


# shared/reference/clm-bench.md, sections 7.1 and 7.2, counted there independently of this code. Left out because they
# are not reproduced: near-duplicate prompts in English (sheet 22) and contradictory edits in English (sheet: by hand).
SHEET: dict[str, dict[str, int]] = {
    "string_ids": {"zh": 35, "en": 35},
    "duplicated_ids": {"zh": 35, "en": 35},
    "id_mismatches": {"all": 0},
    "null_truths": {"zh": 0, "en": 19},
    "empty_fields": {"zh": 0, "en": 0},
    "subject_not_in_prompt": {"zh": 0, "en": 0},
    "subject_not_in_paraphrase": {"zh": 176, "en": 200},
    "subject_is_whole_prompt": {"zh": 135, "en": 138},
    "target_equals_truth": {"zh": 0, "en": 1},
    "target_inside_truth": {"zh": 1, "en": 3},
    "truth_inside_target": {"zh": 0, "en": 3},
    "truth_in_prompt": {"zh": 4, "en": 4},
    "paraphrase_equals_prompt": {"zh": 2, "en": 9},
    "paraphrase_similarity_above_90": {"zh": 15, "en": 84},
    "paraphrase_similarity_above_80": {"zh": 141, "en": 350},
    "paraphrase_is_another_prompt": {"zh": 2, "en": 2},
    "same_paraphrase_other_target": {"zh": 2, "en": 0},
    "contradictory_edits": {"zh": 2},
    "duplicate_prompts": {"zh": 4, "en": 6},
    "duplicate_prompt_groups": {"zh": 2, "en": 3},
    "near_duplicate_prompt_pairs": {"zh": 5},
    "repeated_subjects": {"zh": 155, "en": 142},
    "repeated_subject_groups": {"zh": 65, "en": 59},
    "repeated_targets": {"zh": 188, "en": 194},
    "repeated_target_groups": {"zh": 73, "en": 76},
    "chinese_in_english_fields": {"en": 7},
    "locality_question_foreign": {"zh": 91, "en": 0},
    "locality_question_mixed": {"zh": 152, "en": 0},
    "locality_answer_foreign": {"zh": 129, "en": 0},
    "locality_answer_mixed": {"zh": 45, "en": 0},
    "locality_answer_digits_only": {"zh": 83, "en": 102},
    "locality_not_own_language": {"zh": 1010 - 605, "en": 102},
    "locality_prefixed": {"zh": 0, "en": 1010},
    "locality_repeated": {"zh": 1010 - 1008, "en": 1010 - 1007},
    "locality_padded": {"zh": 148, "en": 0},
    "locality_answer_same_in_all": {"all": 206},
    "subject_first": {"zh": 1007},
    "at_most_one_word_after_subject": {"en": 807},
    "key_collisions": {"zh": 157, "en": 11},
    "key_collision_groups": {"zh": 66, "en": 5},
}


needs_data = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there: the data have no licence and are not in the project")


@pytest.fixture(scope="module")
def released() -> tuple[list[FactRecords], Audit]:
    return clm_bench.read(SHARED, BOTH)


@needs_data
@pytest.mark.parametrize("check", CHECKS)
def test_released_data_have_the_counts_of_the_fact_sheet(released: tuple[list[FactRecords], Audit], check: str) -> None:
    found = released[1].defects[check]
    assert {code: found[code] for code in SHEET[check]} == SHEET[check]


@needs_data
def test_released_rows_without_truth_and_the_waterfall_are_dropped_and_no_other(released: tuple[list[FactRecords], Audit]) -> None:
    facts, audit = released
    assert set(audit.dropped) == {f"clm-{row:04d}" for row in (267, 313, *range(510, 528))}
    assert (audit.num_read, audit.num_selected, len(facts)) == (1010, 990, 990)


@needs_data
def test_released_facts_have_both_languages_and_their_subjects(released: tuple[list[FactRecords], Audit]) -> None:
    for fact in released[0]:
        assert set(fact.requests) == set(fact.probes) == {"zh", "en"}
        for code, reworded in fact.rewordings.items():
            assert reworded.subject.casefold() == fact.requests[code].subject.casefold()
