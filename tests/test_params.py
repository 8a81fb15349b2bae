"""A mistake in params.yaml is named by its whole path, with what would have been right; the project's own file has none."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.conftest import set_params
from xledit.editing import methods
from xledit.languages import LANGUAGES
from xledit.params import section

ROOT = Path(__file__).parents[1]
Write = Callable[[str | bytes], None]


class Cut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cut"):
    share: float

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share is {self.share}; it must be at most 1")


class Fill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="fill"):
    depth: int


class Plain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    steps: int
    lr: float


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write params.yaml in a working folder of its own."""
    monkeypatch.chdir(tmp_path)

    def put(content: str | bytes) -> None:
        Path("params.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    return put


def test_a_section_is_read_as_its_struct(write: Write) -> None:
    write("vectors: {steps: 3, lr: 0.5}\nseed: 17\nedit: {layers: [6, 7]}")
    assert section("vectors", Plain) == Plain(steps=3, lr=0.5)
    assert section("vectors.steps", int) == 3
    assert section("seed", int) == 17
    assert section("edit.layers", tuple[int, ...]) == (6, 7)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1E+2", 100.0), ("2", 2.0), ("1.5e3", 1500.0)])
def test_a_number_is_a_number_however_it_is_written(write: Write, text: str, value: float) -> None:
    write(f"vectors: {{steps: 3, lr: {text}}}")
    assert section("vectors", Plain).lr == value


def test_the_type_picks_the_struct(write: Write) -> None:
    write("methods: {a: {type: cut, share: 0.5}, b: {type: fill, depth: 2}}")
    assert section("methods.a", Cut | Fill) == Cut(share=0.5)  # pyright: ignore[reportArgumentType]
    assert section("methods.b", Cut | Fill) == Fill(depth=2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("content", "path", "kind", "parts"),
    [
        ("vectors: {steps: 3, lr: 1, stepz: 3}", "vectors", Plain, ["vectors.stepz", "steps, lr"]),
        ("vectors: {steps: 3}", "vectors", Plain, ["vectors.lr", "steps, lr"]),
        ("vectors: {steps: many, lr: 1}", "vectors", Plain, ["vectors.steps", "int", "str"]),
        ("vectors: {steps: 1.5, lr: 1}", "vectors", Plain, ["vectors.steps", "int", "float"]),
        ("vectors: {steps: 3, lr: null}", "vectors", Plain, ["vectors.lr", "float", "null"]),
        ("vectors:", "vectors", Plain, ["vectors", "object", "null"]),
        ("edit: {layers: [6, six]}", "edit.layers", tuple[int, ...], ["edit.layers[1]", "int", "str"]),
        ("seed: x", "seed", int, ["seed", "int", "str"]),
        ("methods: {a: {type: cutt, share: 1}}", "methods.a", Cut | Fill, ["methods.a.type", "cutt", "cut, fill"]),
        ("methods: {a: {share: 1}}", "methods.a", Cut | Fill, ["methods.a.type", "cut, fill"]),
        ("methods: {a: {type: cut, shape: 1}}", "methods.a", Cut | Fill, ["methods.a.shape", "known keys: share"]),
        ("methods: {a: {type: cut, share: 2}}", "methods.a", Cut | Fill, ["methods.a", "share is 2.0; it must be at most 1"]),
        ("methods: {a: {type: cut, share: 1}}", "methods.b", Cut | Fill, ["methods.b", "methods has: a"]),
        ("grid: {languages: [zh]}", "grid.langages", list, ["grid.langages", "grid has: languages"]),
        ("seed: 1", "seed.deep", int, ["seed.deep", "no such setting"]),
        ("seed: 1", "summary", int, ["summary", "the top level has: seed"]),
        ("sumary: {}", "seed", int, ["sumary", "unknown section", "seed", "summary"]),
    ],
)
def test_a_mistake_is_named_by_its_path_with_what_would_be_right(
    write: Write, content: str, path: str, kind: type, parts: list[str]
) -> None:
    write(content)
    with pytest.raises(ValueError) as error:
        section(path, kind)
    message = str(error.value)
    assert message.startswith("params.yaml: ")
    assert not [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("summary: {", ["line 1"]),
        ("seed: 1\n\tedit: 2", ["line 2"]),
        ("seed: 1\nseed: 2", ["line 2", "seed"]),
        ("seed: *none", ["line 1", "none"]),
        ("", ["expected sections"]),
        ("- seed", ["expected sections"]),
        ("seed: !!python/object:os.system x", ["line 1", "tag"]),
        (b"seed: \xff\n", ["UTF-8"]),
        (b"seed: \x07\n", ["character"]),
    ],
    ids=["open brace", "tab", "twice", "alias", "empty", "list", "tag", "not UTF-8", "control character"],
)
def test_a_file_that_is_not_yaml_is_refused_with_its_place(write: Write, content: str | bytes, parts: list[str]) -> None:
    write(content)
    with pytest.raises(ValueError) as error:
        section("seed", int)
    message = str(error.value)
    assert message.startswith("params.yaml: ")
    assert not [part for part in parts if part not in message], message


def test_a_missing_file_says_where_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"params\.yaml: not found; run the stages from the project's root"):
        section("seed", int)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("memit", "{old_key_wait: 1, regularisation: 1}", ["methods.memit.old_key_wait", "old_key_weight, regularisation"]),
        ("memit", "{type: memit, regularisation: 1}", ["methods.memit.type"]),
        ("alphaedit", "{null_energy: 2, ridge: 1}", ["methods.alphaedit", "null_energy is 2.0"]),
    ],
)
def test_a_mistake_in_a_method_lists_its_settings(write: Write, name: str, content: str, parts: list[str]) -> None:
    write(f"methods: {{{name}: {content}}}")
    with pytest.raises(ValueError) as error:
        section(f"methods.{name}", methods.method_class(name))
    assert not [part for part in parts if part not in str(error.value)], str(error.value)


@pytest.mark.parametrize("name", ["memitt", "", "../method", "__init__", "memit.py"])
def test_a_name_that_is_no_method_lists_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(repr(name))} is no method; known: alphaedit, .*, ultraedit"):
        methods.method_class(name)


@pytest.mark.parametrize("name", methods.NAMES)
def test_a_methods_settings_have_defaults_that_fit(write: Write, name: str) -> None:
    write(f"methods: {{{name}: {{}}}}")
    assert section(f"methods.{name}", methods.method_class(name)) == methods.method_class(name)()


def test_an_unknown_choice_lists_the_known_ones(write: Write) -> None:
    """A dtype, an order or a data set's name is one of a few."""
    write((ROOT / "params.yaml").read_bytes())
    set_params(Path(), {"data.source": "benchmrk"})
    with pytest.raises(ValueError, match=r"data\.source: .*benchmrk.*\bbenchmark\b.*\bclm_bench\b"):
        section("data", importlib.import_module("stages.editing.prepare").DataParams)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("runtime", "stages.common.devices:RuntimeParams"),
        ("model", "xledit.models.loading:ModelParams"),
        ("data", "stages.editing.prepare:DataParams"),
        ("covariance", "stages.editing.covariance:CovarianceParams"),
        ("vectors", "xledit.editing.targets:TargetSettings"),
        ("edit", "stages.editing.apply:EditParams"),
        ("watch", "xledit.evaluation.watch:WatchParams"),
        ("evaluate", "stages.editing.evaluate:EvaluateParams"),
        ("summary", "xledit.evaluation.summary:SummaryParams"),
        ("tranyu.world", "stages.training.world:WorldParams"),
        ("tranyu.sources", "stages.training.corpus:Sources"),
        ("tranyu.corpus", "xledit.training.corpus:CorpusParams"),
        ("tranyu.tokenizer", "xledit.training.bpe:TokenizerParams"),
        ("tranyu.reference", "stages.training.tokenizer:ReferenceParams"),
        ("tranyu.mixture", "xledit.training.mixture:Mixture"),
        ("tranyu.architecture", "xledit.training.architecture:ArchitectureParams"),
        ("tranyu.run", "stages.training.pretrain:RunParams"),
        ("tranyu.pretrain", "xledit.training.pretrain:PretrainParams"),
        ("tranyu.sft", "xledit.training.tuning_params:SftParams"),
        ("tranyu.dpo", "xledit.training.tuning_params:DpoParams"),
        ("tranyu.recall", "stages.training.recall:RecallParams"),
    ],
)
def test_the_projects_settings_fit_the_struct_that_reads_them(monkeypatch: pytest.MonkeyPatch, path: str, kind: str) -> None:
    monkeypatch.chdir(ROOT)
    module, name = kind.split(":")
    struct = getattr(importlib.import_module(module), name)
    assert isinstance(section(path, struct), struct)


def test_every_method_has_its_settings_in_the_project_and_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert set(section("methods", dict[str, dict[str, object]])) == set(methods.NAMES)
    for name in methods.NAMES:
        section(f"methods.{name}", methods.method_class(name))


def test_the_projects_grid_names_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    languages = section("grid.languages", tuple[str, ...])
    assert set(languages) <= set(LANGUAGES)
    assert set(languages) <= set(section("covariance.corpus", dict[str, str]))
    assert set(languages) <= set(section("watch.text", dict[str, str]))
    for edit in section("grid.edits", tuple[str, ...]):
        assert set(importlib.import_module("xledit.editing.combine").combination(edit, languages).languages) <= set(languages)
    assert set(section("grid.methods", tuple[str, ...])) <= set(section("methods", dict[str, object]))
    layers = section("edit.layers", tuple[int, ...])
    assert layers == tuple(sorted(set(layers)))
    assert 0 <= section("grid.rewordings", int) <= section("edit.num_facts", int)
    assert section("seed", int) >= 0
