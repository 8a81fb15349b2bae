"""The embedded model itself, on a few facts of our own benchmark: editing works in each language, and leaves no trace."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.benchmark import read as benchmark
from xledit.editing.apply import edited
from xledit.editing.artifacts import SavedVectors
from xledit.editing.batches import edit_in_batches
from xledit.editing.combine import combination
from xledit.editing.locate import ClosedForm, LocateThenEdit
from xledit.editing.methods.alphaedit import AlphaEdit
from xledit.editing.methods.memit import Memit
from xledit.editing.practice import PRACTICES
from xledit.editing.second_moment import second_moments
from xledit.editing.targets import TargetSettings, find_targets
from xledit.evaluation.metrics import exact
from xledit.evaluation.scoring import score_probes
from xledit.families.describe import load_folder
from xledit.models.family import memory_of
from xledit.models.loading import ModelParams, resolve

ROOT = Path(__file__).parents[1]
LAYERS = (6, 7)
SETTINGS = TargetSettings(batch_size=6, clamp=0.8, kl_weight=0.0625, lr=0.4, num_prefixes=0, steps=12, stop_below=0.1, weight_decay=0.005)
METHODS = (Memit(old_key_weight=30.0, regularisation=0.03), AlphaEdit(null_energy=0.1, ridge=0.1))


@pytest.fixture(scope="module")
def embedded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    torch.set_num_threads(2)
    params = ModelParams(name="embedded", files=str(ROOT / "data/models/embedded.json"), revision=None, dtype="float32", family="known")
    return load_folder(resolve(params)[0], params.dtype, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_embedded_model_says_what_was_written_into_it(embedded: tuple[PreTrainedModel, PreTrainedTokenizerBase], language: str) -> None:
    model, tokenizer = embedded
    choice = benchmark.Choice(split="dev", order="first", world_knowledge=False, probes={})
    facts, _ = benchmark.read(ROOT / "data/benchmark", ("zh", "en"), choice, num_facts=6, skip_facts=0, seed=17)
    requests = [fact.requests[language] for fact in facts]
    probes = [probe for fact in facts for probe in fact.probes[language] if probe.kind == "efficacy"]
    texts = (ROOT / f"data/corpus/{language}.txt").read_text(encoding="utf-8").splitlines()
    moments = second_moments(model, tokenizer, texts, LAYERS, max_keys=1500, window=128)
    found = find_targets(model, tokenizer, requests, LAYERS, SETTINGS)
    vectors = SavedVectors(tuple(fact.fact_id for fact in facts), found.memories, found.targets)
    before = score_probes(model, tokenizer, probes, 1024)
    weights = [memory_of(model, layer).get_parameter("weight").clone() for layer in LAYERS]
    assert sum(exact(score, score) for score in before) <= 1

    def says(method: ClosedForm) -> float:
        alone = combination(language, (language,))
        editor = LocateThenEdit(
            model,
            tokenizer,
            method,
            alone,
            {language: requests},
            {language: vectors},
            {language: moments},
            tuple(LAYERS),
            SETTINGS,
            PRACTICES["ours"],
        )
        (step,) = edit_in_batches(model, alone, len(requests), None, editor)
        with edited(model, step.updates):
            after = score_probes(model, tokenizer, probes, 1024)
        return sum(exact(score, was) for score, was in zip(after, before, strict=True))

    assert min(map(says, METHODS)) >= 5
    for layer, weight in zip(LAYERS, weights, strict=True):
        assert torch.equal(memory_of(model, layer).get_parameter("weight"), weight)
