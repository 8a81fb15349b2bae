"""Edit vectors and second moments -> one edit: a low-rank update per layer, or text before the prompt; and how the model fared.

``--edit`` is a language, or a way to combine all (``xledit/editing/combine.py``). Facts are stored ``edit.batch_size`` at a
time; after each batch the model is asked what it recalls of this and of earlier batches and how well it still reads
held-out text. When it has collapsed, the rest is left undone: the artifact holds what was stored until then.
"""

import math
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.loaded import load_model
from stages.runner import log, progress, run, wrote
from xledit.datasets.corpus import read_texts
from xledit.editing.artifacts import SavedEdit, load_moments, load_vectors, save_edit
from xledit.editing.combine import Combination, combination
from xledit.editing.incontext import Ike
from xledit.editing.methods import AnyMethod
from xledit.editing.sequence import LocateThenEdit, Training, edit_in_batches
from xledit.editing.targets import TargetSettings
from xledit.editing.tuning import FineTuning, Lora
from xledit.evaluation.watch import Watch, WatchParams
from xledit.params import section
from xledit.records import Demonstration, EditRequest, as_published
from xledit.results import Check
from xledit.storage import read_json, write_json


class EditParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``edit`` section of params.yaml.

    ``batch_size`` facts are stored at a time (null: all at once); fewer is the harder, lifelong setting. ``published_code``
    makes the choices of the published code instead of ours (docs/methods.md): for comparison, not for use.
    """

    batch_size: int | None
    layers: tuple[int, ...]
    num_facts: int
    published_code: bool

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"edit.batch_size is {self.batch_size}; it must be at least 1, or null for all facts at once")


def main(
    method: Annotated[str, typer.Option()],
    edit: Annotated[str, typer.Option()],
    model_manifest: Annotated[Path, typer.Option()],
    artifacts: Annotated[Path, typer.Option(help="folder with requests, vectors, covariance and demonstrations by language")],
    out: Annotated[Path, typer.Option()],
    out_checks: Annotated[Path, typer.Option(help="JSON: how the model fared, batch by batch")],
) -> None:
    chosen: AnyMethod = section(f"methods.{method}", AnyMethod)  # pyright: ignore[reportArgumentType]
    params = section("edit", EditParams)
    known = section("grid.languages", tuple[str, ...])
    combined = combination(edit, known)
    requests = {code: read_json(artifacts / "requests" / f"{code}.json", list[EditRequest]) for code in combined.languages}
    checks: list[Check] = []
    if isinstance(chosen, Ike):
        prepared = {code: read_json(artifacts / "demonstrations" / f"{code}.json", list[Demonstration]) for code in combined.languages}
        saved = SavedEdit({}, chosen.contexts([request for found in requests.values() for request in found], prepared))
    else:
        model, tokenizer = load_model(model_manifest)
        if params.published_code:
            requests = {code: as_published(found) for code, found in requests.items()}
        watched = section("watch", WatchParams)
        texts = {code: read_texts(code, watched.text, "watch.text") for code in known}
        editor = editor_of(chosen, model, tokenizer, combined, requests, artifacts, params)
        watch = Watch(model, tokenizer, watched, texts, editor.layers, section("seed", int))
        num_facts, updates = len(next(iter(requests.values()))), {}
        checks.append(watch.unedited(requests))
        with progress(num_facts * len(requests), "facts") as step:
            for done in edit_in_batches(model, combined, num_facts, params.batch_size, editor):
                updates = done.updates
                checks.append(watch.check(requests, done.places))
                step((done.places.stop - done.places.start) * len(requests))
                log.info("%s", sentence(checks[-1]))
                if checks[-1].collapsed and done.places.stop < num_facts:
                    log.warning("the model has collapsed after %d of %d facts; the others are left out", done.places.stop, num_facts)
                    break
        saved = SavedEdit(updates, {})
    save_edit(out, method, edit, saved)
    write_json(out_checks, checks)
    wrote(out, out_checks)


def editor_of(
    method: AnyMethod,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    combined: Combination,
    requests: dict[str, list[EditRequest]],
    artifacts: Path,
    params: EditParams,
) -> LocateThenEdit | Training:
    """Return what stores a batch of facts by the method."""
    if isinstance(method, FineTuning | Lora):
        return Training(model, tokenizer, method, combined, requests, params.layers, section("seed", int))
    assert not isinstance(method, Ike)
    return LocateThenEdit(
        model,
        tokenizer,
        method,
        combined,
        requests,
        vectors={code: load_vectors(artifacts / "vectors" / f"{code}.safetensors") for code in combined.languages},
        moments={
            code: load_moments(artifacts / "covariance" / f"{code}.safetensors") for code in section("grid.languages", tuple[str, ...])
        },
        settings=section("vectors", TargetSettings),
        published_code=params.published_code,
    )


def sentence(check: Check) -> str:
    """Return what a check found, as people read it in the log."""
    kept = "" if check.kept is None else f", {check.kept:.0%} of earlier ones"
    text = ", ".join(f"{code} {'not finite' if nats is None else f'{math.exp(nats):.1f}'}" for code, nats in check.text_nats.items())
    return f"{check.num_facts} facts: recalls {check.fresh:.0%} of the newest{kept}; perplexity {text}" + "; COLLAPSED" * check.collapsed


if __name__ == "__main__":
    run(main)
