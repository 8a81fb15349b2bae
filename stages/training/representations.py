"""A model + parallel sentences -> how alike languages are in its states, layer by layer, beside their nulls; and the logit lens."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import log, run, wrote
from stages.training.analysis import begin, natural_languages, parallel_sentences
from xledit.interpret.lens import lens
from xledit.interpret.parallel import told_everywhere
from xledit.interpret.representations import chance_within, compare, sentence_states
from xledit.interpret.results import Pooling, Representations
from xledit.interpret.unification import unification
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training.probes import FactProbe


def main(
    name: Annotated[str, typer.Option(help="embedded, a local folder or a .gguf")],
    files: Annotated[str, typer.Option(help="the local path behind the name")],
    probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact")],
    out: Annotated[Path, typer.Option()],
) -> None:
    model, tokenizer, params = begin(name, files)
    asked = read_json(probes, list[FactProbe])
    parallel = parallel_sentences(params, asked)
    states = {code: sentence_states(model, tokenizer, lines, params.max_tokens) for code, lines in parallel.sentences.items()}
    log.info("%s: %d sentences in %d languages read", name, len(parallel.groups), len(parallel.languages))
    poolings: tuple[Pooling, ...] = ("last", "mean")
    seed = section("seed", int)
    languages = natural_languages()
    num_prompts, read_off = lens(model, tokenizer, told_everywhere(asked), languages, params.max_tokens)
    analysis = Representations(
        name=name,
        languages=parallel.languages,
        num_sentences=len(parallel.groups),
        chance=1 / len(parallel.groups),
        chance_within=chance_within(parallel.groups),
        depths=[
            row for pooling in poolings for row in compare({code: kept[pooling] for code, kept in states.items()}, parallel, pooling, seed)
        ],
        unification=unification(model, tokenizer, asked, languages, params.max_tokens),
        num_prompts=num_prompts,
        lens=read_off,
    )
    write_json(out, analysis)
    wrote(out)


if __name__ == "__main__":
    run(main)
