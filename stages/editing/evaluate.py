"""Model, update and probes -> one score per probe, in every language. Without ``--update``: the unedited model, the floor."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stages.common.loaded import load_model
from stages.common.runner import progress, run, wrote
from xledit.editing.apply import edited
from xledit.editing.artifacts import load_edit
from xledit.evaluation.scoring import score_probes
from xledit.params import section
from xledit.records import PracticeName, Probe, worded_for
from xledit.storage import read_json, write_json


class EvaluateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``evaluate`` section of params.yaml. ``max_tokens`` bounds a batch: memory and speed, not results."""

    max_tokens: int


def main(
    model_manifest: Annotated[Path, typer.Option()],
    probes: Annotated[Path, typer.Option(help="folder, a file per language")],
    out: Annotated[Path, typer.Option()],
    update: Annotated[Path | None, typer.Option()] = None,
) -> None:
    params = section("evaluate", EvaluateParams)
    languages = section("grid.languages", tuple[str, ...])
    asked = [probe for code in languages for probe in read_json(probes / f"{code}.json", list[Probe])]
    edit = load_edit(update) if update else None
    model, tokenizer = load_model(model_manifest)
    practice: PracticeName = section("edit.practice", PracticeName)  # pyright: ignore[reportArgumentType]
    worded = worded_for(practice, asked)
    with edited(model, edit.updates if edit else {}), progress(len(asked), "probes") as step:
        scores = score_probes(model, tokenizer, worded, params.max_tokens, step, edit.contexts if edit else {})
    write_json(out, [msgspec.structs.replace(score, language=probe.language) for score, probe in zip(scores, asked, strict=True)])
    wrote(out)


if __name__ == "__main__":
    run(main)
