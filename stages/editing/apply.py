"""Edit vectors and second moments -> one edit: a low-rank update per layer, or text before the prompt; and checks of the model.

``--edit`` is a language, or a way to combine all (``xledit/editing/combine.py``). Facts are stored ``edit.batch_size`` at a time; after
each batch the model is asked what it recalls of this and of earlier batches, and its perplexity on held-out text is measured. When the
model has collapsed, the remaining facts are not stored: the artifact holds the updates until then.

A method is given only what it reads: ``--vectors`` and ``--covariance`` are for methods that store v*, ``--demonstrations`` for text.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.loaded import load_model
from stages.common.runner import log, progress, run, wrote
from xledit.corpus import read_texts
from xledit.editing.artifacts import load_second_moments, load_vectors, save_edit
from xledit.editing.combine import combination
from xledit.editing.method import AfterBatch, Inputs, Requests
from xledit.editing.methods import method_class
from xledit.editing.practice import PRACTICES
from xledit.editing.targets import TargetSettings
from xledit.evaluation.checks import Check
from xledit.evaluation.watch import Watch, WatchParams
from xledit.params import section
from xledit.records import Demonstration, EditRequest, PracticeName, aligned
from xledit.storage import read_json, write_json

T = TypeVar("T")


class EditParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``edit`` section of params.yaml.

    ``batch_size`` facts are stored at a time (null: all at once); fewer is the harder, lifelong setting. ``practice`` is ``ours`` or
    ``published``, the choices of published code (docs/methods.md): for comparison, not for use.
    """

    batch_size: int | None
    layers: tuple[int, ...]
    num_facts: int
    practice: PracticeName

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"edit.batch_size is {self.batch_size}; it must be at least 1, or null for all facts at once")


def main(
    method: Annotated[str, typer.Option(help="a file of xledit/editing/methods, without .py")],
    edit: Annotated[str, typer.Option()],
    model_manifest: Annotated[Path, typer.Option()],
    requests: Annotated[Path, typer.Option(help="folder, a file per language")],
    out: Annotated[Path, typer.Option()],
    out_checks: Annotated[Path, typer.Option(help="JSON: how the model fared, batch by batch")],
    vectors: Annotated[Path | None, typer.Option(help="folder, a file per language")] = None,
    covariance: Annotated[Path | None, typer.Option(help="folder, a file per language")] = None,
    demonstrations: Annotated[Path | None, typer.Option(help="folder, a file per language")] = None,
) -> None:
    chosen = section(f"methods.{method}", method_class(method))
    params, languages = section("edit", EditParams), section("grid.languages", tuple[str, ...])
    combined = combination(edit, languages)

    def per_language(folder: Path | None, grid: str, suffix: str, read: Callable[[Path], T], codes: Sequence[str]) -> dict[str, T]:
        if folder is None:
            raise ValueError(f"{method} reads what this cell was not given; in params.yaml, name it under {grid}")
        return {code: read(folder / f"{code}{suffix}") for code in codes}

    stores_targets, direct = "grid.methods, not grid.direct", "grid.direct, not grid.methods"
    checks: list[Check] = []
    inputs = Inputs(
        combination=combined,
        requests=aligned({code: read_json(requests / f"{code}.json", list[EditRequest]) for code in combined.languages}),
        layers=params.layers,
        batch_size=params.batch_size,
        practice=PRACTICES[params.practice],
        target_settings=section("vectors", TargetSettings),
        seed=section("seed", int),
        load_model=lambda: load_model(model_manifest),
        load_vectors=lambda: per_language(vectors, stores_targets, ".safetensors", load_vectors, combined.languages),
        load_second_moments=lambda: per_language(covariance, stores_targets, ".safetensors", load_second_moments, languages),
        load_demonstrations=lambda: per_language(
            demonstrations, direct, ".json", lambda path: read_json(path, list[Demonstration]), combined.languages
        ),
    )
    with ExitStack() as stack:

        def watching(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: Sequence[int], asked: Requests) -> AfterBatch:
            watched = section("watch", WatchParams)
            texts = {code: read_texts(code, watched.text, "watch.text") for code in languages}
            watch = Watch(model, tokenizer, watched, texts, layers, inputs.seed)
            checks.append(watch.unedited(asked))
            num_facts = len(next(iter(asked.values())))
            step = stack.enter_context(progress(num_facts * len(asked), "facts"))

            def after_batch(places: slice) -> bool:
                checks.append(watch.check(asked, places))
                step((places.stop - places.start) * len(asked))
                log.info("%s", sentence(checks[-1]))
                if checks[-1].collapsed and places.stop < num_facts:
                    log.warning("the model has collapsed after %d of %d facts; the others are left out", places.stop, num_facts)
                return not checks[-1].collapsed

            return after_batch

        saved = chosen.edit(inputs, watching)
    save_edit(out, method, edit, saved)
    write_json(out_checks, checks)
    wrote(out, out_checks)


def sentence(check: Check) -> str:
    """Return a check as a sentence for the log."""
    kept = "" if check.kept is None else f", {check.kept:.0%} of earlier ones"
    text = ", ".join(f"{code} {'not finite' if nats is None else f'{math.exp(nats):.1f}'}" for code, nats in check.text_nats.items())
    return f"{check.num_facts} facts: recalls {check.fresh:.0%} of the newest{kept}; perplexity {text}" + "; COLLAPSED" * check.collapsed


if __name__ == "__main__":
    run(main)
