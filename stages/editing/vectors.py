"""Model and requests -> edit vectors of one language: each fact's key, value and v*, the value that makes it true.

They are computed for the first ``grid.vectors`` facts (null: all), and for the rewordings of these facts, too (as many as
``grid.rewordings``): the difference between wordings of one language is the scale for the difference between languages. Also writes counts
of tokenizer effects in the requests.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.loaded import load_model
from stages.common.runner import log, progress, run, wrote
from xledit.editing.artifacts import save_vectors
from xledit.editing.targets import TargetSettings, find_targets
from xledit.models.family import check_layers, layers_of
from xledit.models.prompts import encode_prompt, merges_with_prompt
from xledit.params import section
from xledit.records import EditRequest
from xledit.storage import read_json, write_json


def main(
    model_manifest: Annotated[Path, typer.Option()],
    requests: Annotated[Path, typer.Option()],
    rewordings: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    out_reworded: Annotated[Path, typer.Option()],
    tokens: Annotated[Path, typer.Option(help="JSON with counts of tokenizer effects")],
) -> None:
    settings = section("vectors", TargetSettings)
    layers = section("edit.layers", tuple[int, ...])
    asked = read_json(requests, list[EditRequest])
    first = asked[: section("grid.vectors", int | None)]  # pyright: ignore[reportArgumentType]
    first_ids = {request.fact_id for request in first}
    reworded = [request for request in read_json(rewordings, list[EditRequest]) if request.fact_id in first_ids]
    wordings = {out: first, out_reworded: reworded[: section("grid.rewordings", int)]}
    model, tokenizer = load_model(model_manifest)
    check_layers(layers, len(layers_of(model)))
    for path, chosen in wordings.items():
        with progress(len(chosen), "facts") as step:
            vectors = find_targets(model, tokenizer, chosen, layers, settings, step)
        if chosen:
            log.info(
                "loss: median %.3f, largest %.3f nats; steps: mean %.1f",
                vectors.losses.median(),
                vectors.losses.max(),
                vectors.steps.mean(),
            )
        save_vectors(path, tuple(request.fact_id for request in chosen), vectors)
    counts = {
        "requests": len(asked),
        "subject_token_swallows_next_character": sum(encode_prompt(tokenizer, r.prompt, r.subject_span).swallows for r in asked),
        "prompt_and_target_would_merge": sum(merges_with_prompt(tokenizer, r.prompt, r.target_new, r.language) for r in asked),
    }
    write_json(tokens, counts)
    wrote(out, out_reworded, tokens)


if __name__ == "__main__":
    run(main)
