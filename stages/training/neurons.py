"""A model + parallel sentences -> which units matter to which language, checked by switching units off; and languages' own neurons."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.common.runner import log, run, wrote
from stages.training.analysis import begin, parallel_sentences
from xledit.interpret.language_neurons import activation_shares, causal, overlap_chance, overlaps, specific
from xledit.interpret.neurons import ablate, activation_of, components_of, importance, mean_of, of_components
from xledit.interpret.results import Neurons
from xledit.models.prompts import encode_text
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
    parallel = parallel_sentences(params, read_json(probes, list[FactProbe]))
    at_once = params.max_tokens // 4  # gradients keep every component's states
    halves = {
        code: (importance(model, tokenizer, lines[::2], at_once), importance(model, tokenizer, lines[1::2], at_once))
        for code, lines in parallel.sentences.items()
    }
    log.info("%s: importance in %d languages", name, len(halves))
    checked = ablate(
        model,
        tokenizer,
        [line for lines in parallel.sentences.values() for line in lines[: params.ablation_sentences]],
        params.ablation_units,
        at_once,
    )
    log.info("ablation of %d units", params.ablation_units * len(checked))
    neurons = [place for place, module in components_of(model).items() if module is activation_of(model, place[0])]
    between, within = overlaps(halves, neurons, params.overlap_share)
    shares = torch.stack([activation_shares(model, tokenizer, lines[::2], params.max_tokens) for lines in parallel.sentences.values()])
    own = dict(zip(parallel.languages, specific(shares), strict=True))
    # sentences that did not choose the neurons
    asked = {code: lines[1::2][: params.causal_sentences] for code, lines in parallel.sentences.items()}
    analysis = Neurons(
        name=name,
        languages=parallel.languages,
        num_sentences=len(parallel.groups),
        tokens_per_sentence={
            code: sum(len(encode_text(tokenizer, line)) for line in lines) / len(lines) for code, lines in parallel.sentences.items()
        },
        loss={code: (one.loss + other.loss) / 2 for code, (one, other) in halves.items()},
        importance=[row for code, pair in halves.items() for row in of_components(code, mean_of(pair))],
        ablation=checked,
        num_neurons=shares[0].numel(),
        specific=causal(model, tokenizer, own, asked, params.max_tokens, section("seed", int)),
        overlap=between,
        overlap_halves=within,
        overlap_chance=overlap_chance(params.overlap_share),
    )
    write_json(out, analysis)
    wrote(out)


if __name__ == "__main__":
    run(main)
