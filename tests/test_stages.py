"""Stages that run a model, called in this process on a tiny one: what they write is what transformers' model gives by hand."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from stages.editing import apply, covariance, evaluate, model, vectors
from tests.conftest import ROOT, read_json, set_params
from tests.tiny import save_tiny, tiny_tokenizer
from xledit.editing.artifacts import SavedEdit, load_edit, load_second_moments, load_vectors, save_second_moments, save_vectors
from xledit.editing.tensors import EditVectors, LayerMemory, SecondMoment
from xledit.evaluation import watch
from xledit.evaluation.checks import Check
from xledit.evaluation.watch import Watch
from xledit.records import Demonstration, EditRequest, Probe
from xledit.storage import write_json

LAYERS = (1, 2)
# two subjects end within a token, and the answer of one prompt would melt into it
WORDED = {
    "zh": (
        ("法国的首都是", "法国", "东京"),
        ("The Fran", "Fra", "Tokyo"),
        ("长江的th", "长江", "e river"),
        ("写了《红楼梦》的人", "红楼梦", "鲁迅"),
        ("The capital of France is", "Fra", "Rome"),
    ),
    "en": (
        ("The capital of France is", "France", "Tokyo"),
        ("Born in Ulm: Einstein", "Einstein", "Bohr"),
        ("It flows through China", "China", "Europe"),
        ("Who wrote it? Cao", "Cao", "Lu Xun"),
        ("The capital of Peru is", "Peru", "Rome"),
    ),
}
TEXTS = {"zh": ["法国的首都是巴黎，日本的首都是东京。", "黄河在中国。"], "en": ["Einstein was born in Ulm.", "It rains.", "Paris."]}
SETTINGS = {
    "runtime.threads": 1,
    "runtime.device": "cpu",
    "runtime.matmul_precision": "highest",
    "grid.languages": ["zh", "en"],
    "edit.layers": list(LAYERS),
    "methods.memit": {"old_key_weight": 2.0, "regularisation": 0.1},
    "covariance.corpus": {code: f"{code}.txt" for code in TEXTS},
    "watch.text": {code: f"{code}.txt" for code in TEXTS},
    "watch.passages": 2,
}


@dataclass(frozen=True)
class Folder:
    """A folder with settings, texts and a manifest, where stages run, and its model as transformers loads it."""

    root: Path
    model: PreTrainedModel

    def set(self, **values: Any) -> None:
        set_params(self.root, {name.replace("__", "."): value for name, value in values.items()})

    def at_memory(self, tokens: Sequence[int], layer: int) -> tuple[Tensor, Tensor]:
        """What a layer's memory reads and gives at each token, float64."""
        seen = []
        memory = self.model.model.layers[layer].mlp.down_proj
        hook = memory.register_forward_hook(lambda _module, given, value: seen.append((given[0][0].double(), value[0].double())))
        with torch.no_grad():
            self.model(torch.tensor([tokens]))
        hook.remove()
        return seen[0]

    def at_subjects(self, requests: Sequence[EditRequest], layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of these facts: at the last token that covers a part of the subject."""
        pairs = []
        for request in requests:
            encoded = tiny_tokenizer()(request.prompt, return_offsets_mapping=True)
            last = max(place for place, (start, _stop) in enumerate(encoded["offset_mapping"]) if start < request.subject_span[1])
            pairs.append([tensor[last] for tensor in self.at_memory(encoded["input_ids"], layer)])
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys), torch.stack(values)

    def weight(self, layer: int) -> Tensor:
        return self.model.model.layers[layer].mlp.down_proj.weight

    def nats(self, code: str) -> float:
        """Transformers' own loss of the first two passages, the mean over tokens."""
        rows = [tiny_tokenizer()(text).input_ids for text in TEXTS[code][:2]]
        with torch.no_grad():
            losses = [float(self.model(torch.tensor([row]), labels=torch.tensor([row])).loss) * (len(row) - 1) for row in rows]
        return sum(losses) / sum(len(row) - 1 for row in rows)

    def recalls(self, request: EditRequest) -> bool:
        """Whether each token of the new answer is the argmax where it is due."""
        joiner = {"zh": "", "en": " "}[request.language]
        prompt = tiny_tokenizer()(request.prompt).input_ids
        answer = tiny_tokenizer()(joiner + request.target_new, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return logits.argmax(-1).tolist() == answer

    def write_inputs(self) -> dict[str, dict[int, Tensor]]:
        """Write requests, second moments, and vectors whose target values are random, of the size of values; return those."""
        targets: dict[str, dict[int, Tensor]] = {}
        for seed, code in enumerate(WORDED):
            asked = requests(code)
            memories = {layer: LayerMemory(keys, values, keys) for layer in LAYERS for keys, values in [self.at_subjects(asked, layer)]}
            targets[code] = {
                layer: normal(*memory.values.shape, seed=7 * seed + layer) * memory.values.norm() / memory.values.numel() ** 0.5
                for layer, memory in memories.items()
            }
            zeros = torch.zeros(len(asked), dtype=torch.float64)
            facts = tuple(request.fact_id for request in asked)
            save_vectors(self.root / "vectors" / f"{code}.safetensors", facts, EditVectors(memories, targets[code], zeros, zeros))
            save_second_moments(self.root / "covariance" / f"{code}.safetensors", {layer: old_keys(seed, layer) for layer in LAYERS})
            # another order of facts in the second language
            write_json(self.root / "requests" / f"{code}.json", asked[:: 1 if code == "zh" else -1])
        return targets

    def apply(self, edit: str, method: str = "memit", **inputs: Path | None) -> tuple[SavedEdit, list[Check]]:
        """Run the stage; return the edit and the checks."""
        given = {"vectors": Path("vectors"), "covariance": Path("covariance")} if method == "memit" else {}
        apply.main(
            method=method,
            edit=edit,
            model_manifest=Path("model.json"),
            requests=Path("requests"),
            out=Path("edit.safetensors"),
            out_checks=Path("checks.json"),
            **(given | inputs),
        )
        return load_edit(Path("edit.safetensors")), [Check(**check) for check in json.loads(Path("checks.json").read_text())]


def says(caplog: pytest.LogCaptureFixture, number: int, unit: str) -> bool:
    """Whether the log says at the end of a stretch of work how many of what are done."""
    return any(message.startswith(f"{number} {unit}, ") for message in caplog.messages)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def old_keys(seed: int, layer: int) -> SecondMoment:
    return SecondMoment(torch.diag(normal(32, seed=10 * seed + layer).exp()), 1000 + 2000 * seed)


def requests(code: str) -> list[EditRequest]:
    return [
        EditRequest(
            fact_id=f"fact-{place}",
            language=code,
            prompt=prompt,
            subject_span=(prompt.index(subject), prompt.index(subject) + len(subject)),
            target_new=new,
            target_true="x",
        )
        for place, (prompt, subject, new) in enumerate(WORDED[code])
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its manifest and settings that name it."""
    root = tmp_path_factory.mktemp("tiny")
    folder = str(save_tiny(root / "model"))
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(root, SETTINGS | {"model.name": folder, "model.files": folder})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        model.main(out=Path("model.json"))
    return root


@pytest.fixture
def folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Folder:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    for name in ("params.yaml", "model.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    for code, texts in TEXTS.items():
        (tmp_path / f"{code}.txt").write_text("\n".join(texts), encoding="utf-8")
    return Folder(tmp_path, AutoModelForCausalLM.from_pretrained(tiny / "model").eval())


# second moments


@pytest.mark.parametrize("max_tokens", [20, 1000])
def test_the_second_moment_is_the_mean_of_all_products_of_keys_window_by_window(
    folder: Folder, caplog: pytest.LogCaptureFixture, max_tokens: int
) -> None:
    folder.set(covariance__max_tokens=max_tokens, covariance__window=6)
    covariance.main(model_manifest=Path("model.json"), out=Path("moments"))
    for code, texts in TEXTS.items():
        cut, left = [], max_tokens
        for text in texts:
            tokens = tiny_tokenizer()(text, add_special_tokens=False).input_ids[:left]
            cut += [[0, *tokens[start : start + 6]] for start in range(0, len(tokens), 6)]
            left -= len(tokens)
        found = load_second_moments(Path("moments") / f"{code}.safetensors")
        assert tuple(found) == LAYERS
        for layer, moment in found.items():
            keys = torch.cat([folder.at_memory(window, layer)[0][1:] for window in cut])
            assert moment.num_keys == len(keys) == sum(len(window) - 1 for window in cut)
            torch.testing.assert_close(moment.matrix, keys.T @ keys / len(keys), rtol=1e-4, atol=1e-5)
        assert says(caplog, moment.num_keys, "keys")


# edit vectors


def test_vectors_are_of_the_first_facts_and_of_their_rewordings(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.set(grid__vectors=3, grid__rewordings=2, vectors__steps=40)
    asked = requests("zh")
    reworded = [requests("en")[place] for place in (4, 2, 1, 0)]  # of facts that have vectors: three, of which two are wanted
    names = {"requests": Path("requests.json"), "rewordings": Path("reworded.json")}
    write_json(names["requests"], asked)
    write_json(names["rewordings"], reworded)
    outputs = {"out": Path("own.safetensors"), "out_reworded": Path("other.safetensors"), "tokens": Path("tokens.json")}
    vectors.main(model_manifest=Path("model.json"), **names, **outputs)
    for path, chosen in ((outputs["out"], asked[:3]), (outputs["out_reworded"], reworded[1:3])):
        found = load_vectors(path)
        assert found.fact_ids == tuple(request.fact_id for request in chosen)
        assert tuple(found.memories) == LAYERS
        for layer in LAYERS:
            keys, values = folder.at_subjects(chosen, layer)
            torch.testing.assert_close(found.memories[layer].keys, keys, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.memories[layer].values, values, rtol=1e-3, atol=1e-4)
            assert (found.deltas(layer).norm(dim=1) > 0).all()
        arrays = load_file(path)
        assert (arrays["steps"] > 0).all()
        assert says(caplog, len(chosen), "facts")
    assert read_json(outputs["tokens"]) == {
        "requests": 5,
        "subject_token_swallows_next_character": 2,
        "prompt_and_target_would_merge": 1,
    }


def test_vectors_without_rewordings_are_written_and_layers_that_there_are_not_are_refused(folder: Folder) -> None:
    folder.set(grid__vectors=1, vectors__steps=1)
    names = {"requests": Path("requests.json"), "rewordings": Path("reworded.json")}
    write_json(names["requests"], requests("zh"))
    write_json(names["rewordings"], [])
    outputs = {"out": Path("own.safetensors"), "out_reworded": Path("other.safetensors"), "tokens": Path("tokens.json")}
    vectors.main(model_manifest=Path("model.json"), **names, **outputs)
    assert load_vectors(outputs["out_reworded"]).fact_ids == ()
    folder.set(edit__layers=[1, 4])
    with pytest.raises(ValueError, match="no layer 4; it has layers 0 to 3"):
        vectors.main(model_manifest=Path("model.json"), **names, **outputs)
    with pytest.raises(ValueError, match="no layer 4; it has layers 0 to 3"):
        covariance.main(model_manifest=Path("model.json"), out=Path("moments"))


# an edit


@pytest.mark.parametrize(("edit", "languages"), [("zh", ("zh",)), ("mixed", ("zh", "en"))])
def test_an_edit_is_the_published_formula_layer_by_layer_and_its_checks_are_those_of_a_model_changed_by_hand(
    folder: Folder, caplog: pytest.LogCaptureFixture, edit: str, languages: tuple[str, ...]
) -> None:
    """MEMIT: ``D = R' (K M K' + ridge I)^-1 K M``, M the inverse of all languages' second moment, keys read after the layer below."""
    targets = folder.write_inputs()
    unedited = {code: folder.nats(code) for code in TEXTS}
    norms = {layer: folder.weight(layer).double().norm().item() for layer in LAYERS}
    asked = [request for code in languages for request in requests(code)]
    before = sum(map(folder.recalls, asked)) / len(asked)
    saved, (first, last) = folder.apply(edit)
    assert tuple(saved.updates) == LAYERS
    assert saved.contexts == {}
    for layer in LAYERS:
        keys, values = folder.at_subjects(asked, layer)
        moments = [old_keys(seed, layer) for seed in range(2)]
        pooled = sum(moment.matrix * moment.num_keys for moment in moments) / sum(moment.num_keys for moment in moments)
        inverse = torch.linalg.inv(pooled + 0.1 * pooled.diagonal().mean() * torch.eye(32, dtype=torch.float64))
        gram = keys @ inverse @ keys.T + 2.0 * torch.eye(len(asked), dtype=torch.float64)
        residuals = torch.cat([targets[code][layer] for code in languages]) - values
        wanted = residuals.T @ torch.linalg.inv(gram) @ keys @ inverse
        torch.testing.assert_close(saved.updates[layer].dense(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
        with torch.no_grad():
            folder.weight(layer).add_(wanted.float())
    assert (first.num_facts, first.kept, first.fresh, first.collapsed) == (0, None, before, False)
    assert first.text_nats == pytest.approx(unedited, rel=1e-4)
    assert first.weight_norms == {str(layer): 1.0 for layer in LAYERS}
    assert (last.num_facts, last.kept, last.collapsed) == (5, None, False)
    assert last.fresh == sum(map(folder.recalls, asked)) / len(asked)
    assert last.text_nats == pytest.approx({code: folder.nats(code) for code in TEXTS}, rel=1e-3)
    assert last.weight_norms == pytest.approx({str(layer): folder.weight(layer).double().norm().item() / norms[layer] for layer in LAYERS})
    assert says(caplog, len(asked), "facts")
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("batch_size", "looks"),
    [
        (2, {0: False, 2: True}),
        (2, {0: False, 2: False, 4: True}),
        (2, {0: False, 2: False, 4: False, 5: True}),
        (2, {0: True, 2: False, 4: False, 5: False}),
        (None, {0: False, 5: True}),
    ],
)
def test_facts_are_stored_batch_by_batch_until_the_model_has_collapsed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, batch_size: int | None, looks: dict[int, bool]
) -> None:
    """``looks``: whether the model counts as ruined after so many facts; the text of a random one can be no more perplexing."""
    verdicts, stored = iter(looks.values()), max(looks)
    monkeypatch.setattr(watch, "collapsed", lambda _nats, _unedited: next(verdicts))
    folder.set(edit__batch_size=batch_size, vectors__steps=1)
    folder.write_inputs()
    saved, found = folder.apply("en")
    assert {check.num_facts: check.collapsed for check in found} == looks
    assert {update.left.shape[1] for update in saved.updates.values()} == {stored}
    assert says(caplog, stored, "facts")
    warned = f"the model has collapsed after {stored} of 5 facts; the others are left out"
    assert (warned in caplog.text) == (stored < 5)
    assert ("left out" in caplog.text) == (stored < 5)


def test_the_seed_of_the_run_draws_which_facts_are_asked_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    class Seen(Watch):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seeds.append(arguments[-1])

    monkeypatch.setattr(apply, "Watch", Seen)
    folder.set(seed=23)
    folder.write_inputs()
    folder.apply("zh")
    assert seeds == [23]


def test_a_language_without_held_out_text_is_named_with_its_setting(folder: Folder) -> None:
    folder.set(watch__text={"zh": "zh.txt"})
    folder.write_inputs()
    with pytest.raises(ValueError, match=r"^watch\.text: no text for language 'en'; it has: zh$"):
        folder.apply("zh")


@pytest.mark.parametrize(
    ("method", "missing", "grid"),
    [
        ("memit", "vectors", "grid.methods, not grid.direct"),
        ("memit", "covariance", "grid.methods, not grid.direct"),
        ("ike", "demonstrations", "grid.direct, not grid.methods"),
    ],
)
def test_a_cell_without_what_its_method_reads_says_where_to_name_the_method(folder: Folder, method: str, missing: str, grid: str) -> None:
    folder.write_inputs()
    with pytest.raises(ValueError, match=f"^{method} reads what this cell was not given; in params.yaml, name it under {grid}$"):
        folder.apply("zh", method, **{missing: None})


def test_an_edit_in_context_tells_examples_and_the_fact_in_the_edited_language(folder: Folder) -> None:
    folder.set(methods__ike={"demonstrations": 1})
    folder.write_inputs()
    shown = [Demonstration(fact_id="d", language="en", new_fact="Cao Xueqin lives.", prompt="He", answer=answer) for answer in "ab"]
    write_json(Path("shown/en.json"), shown)
    saved, found = folder.apply("en", "ike", demonstrations=Path("shown"))
    example = "New Fact: Cao Xueqin lives.\nPrompt: He a.\n\n"
    told = {request.fact_id: f"New Fact: {request.prompt} {request.target_new}.\n" for request in requests("en")}
    assert saved.contexts == {fact: example + line for fact, line in told.items()}
    assert (saved.updates, found) == ({}, [])


@pytest.mark.parametrize(
    ("kept", "collapsed", "said"),
    [
        (None, False, "3 facts: recalls 50% of the newest; perplexity zh 20.1, en not finite"),
        (0.25, True, "3 facts: recalls 50% of the newest, 25% of earlier ones; perplexity zh 20.1, en not finite; COLLAPSED"),
    ],
)
def test_a_check_in_words(kept: float | None, collapsed: bool, said: str) -> None:
    nats = {"zh": 3.0, "en": None}
    check = Check(num_facts=3, fresh=0.5, kept=kept, text_nats=nats, weight_norms={}, collapsed=collapsed)
    assert apply.sentence(check) == said


# probes


@pytest.mark.parametrize("practice", ["ours", "published"])
def test_probes_of_all_languages_are_asked_in_order_and_worded_as_the_practice_says(
    folder: Folder, caplog: pytest.LogCaptureFixture, practice: str
) -> None:
    folder.set(edit__practice=practice)
    probes = {
        code: [
            Probe(fact_id="fact", language=code, kind="locality", prompt=request.prompt, target_new=request.target_new, target_true="x")
            for request in requests(code)[:2]
        ]
        for code in ("en", "zh")
    }
    for code, asked in probes.items():
        write_json(Path("probes") / f"{code}.json", asked)
    evaluate.main(model_manifest=Path("model.json"), probes=Path("probes"), out=Path("scores.json"))
    scores = json.loads(Path("scores.json").read_text())
    assert [(score["language"], score["prompt"]) for score in scores] == [(p.language, p.prompt) for code in TEXTS for p in probes[code]]
    joiner = {"zh": "" if practice == "ours" else " ", "en": " "}
    for score in scores:
        answer = joiner[score["language"]] + score["target_new"]
        assert score["new"]["tokens"] == tiny_tokenizer()(answer, add_special_tokens=False).input_ids
    assert says(caplog, 4, "probes")
