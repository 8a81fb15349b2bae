"""Checkpoints -> when facts and edits begin to cross: what each recalls, how far edits of it reach, how alike its languages are.

Edits are made and scored by the stages of the first half as they are, in a folder with a params.yaml of its own. What a checkpoint gave is
kept in ``--work`` until all are done, so that a run that was killed goes on.
"""

import contextlib
import functools
import hashlib
import itertools
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stages import apply, covariance, evaluate, model, prepare, vectors
from stages.devices import start_torch
from stages.representations import InterpretParams
from stages.runner import log, progress, run, wrote
from xledit.evaluation.watch import said_whole
from xledit.interpret.crossing import Crossing, Reach, reach
from xledit.interpret.language_neurons import overlap_chance, overlaps
from xledit.interpret.neurons import activation_of, components_of, importance
from xledit.interpret.parallel import of_probes
from xledit.interpret.representations import chance_within, compare, sentence_states
from xledit.models.loading import load_folder
from xledit.params import PARAMS, section
from xledit.records import Score
from xledit.storage import read_json, sha256, write_bytes, write_json
from xledit.training.catalog import NATURAL
from xledit.training.pretrain import marks
from xledit.training.recall import recall
from xledit.training.world import FactProbe


class CrossingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.crossing`` section of params.yaml: ``every`` so many checkpoints is edited, and the last.

    ``settings`` are the sections of params.yaml that the stages of the first half read, but for ``model``, ``seed`` and ``runtime``;
    each of ``grid.methods`` edits in each of ``grid.edits``.
    """

    every: int
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be at least 1")


def main(
    checkpoints: Annotated[Path, typer.Option(help="folder with checkpoint-<n>")],
    probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact")],
    edits: Annotated[Path, typer.Option(help="JSON: facts to edit")],
    texts: Annotated[Path, typer.Option(help="folder with text by language")],
    work: Annotated[Path, typer.Option(help="folder for what is done in part")],
    out: Annotated[Path, typer.Option()],
) -> None:
    params = section("tranyu.crossing", CrossingParams)
    languages = [code for code in section("tranyu.run.languages", tuple[str, ...]) if code in NATURAL]
    asked = [probe for probe in read_json(probes, list[FactProbe]) if probe.language in languages]
    inputs = {"data": edits, "texts": texts}
    chosen = marks(checkpoints)[:: -params.every][::-1]
    known = f"{msgspec.json.encode(params)!r} {section('seed', int)} {languages} {sha256(probes)} {sha256(edits)}"
    found = []
    with progress(len(chosen), "checkpoints") as step:
        for mark in chosen:
            folder = checkpoints / f"checkpoint-{mark.number}"
            name = hashlib.sha256(f"{known} {sha256(folder / 'model.safetensors')}".encode()).hexdigest()[:16]
            done = work / f"{name}.json"
            if not done.exists():
                of_states = alike(folder, asked, languages)
                with editing_folder(work / name, folder, params.settings, inputs):
                    reached = edit()
                write_json(done, Crossing(number=mark.number or 0, tokens=mark.tokens, reach=reached, **of_states))
                shutil.rmtree(work / name)
            found.append(read_json(done, Crossing))
            log.info("checkpoint %s, %d tokens: %s", mark.number, mark.tokens, sentence(found[-1]))
            step(1)
    write_json(out, found)
    shutil.rmtree(work)
    wrote(out)


def alike(folder: Path, probes: list[FactProbe], languages: list[str]) -> dict[str, Any]:
    """Return what a checkpoint recalls and how alike its languages are, as fields of ``Crossing``."""
    runtime, params = start_torch(), section("tranyu.interpret", InterpretParams)
    network, tokenizer = load_folder(folder, "float32", runtime.device)
    parallel = of_probes(probes, languages)
    states = {code: sentence_states(network, tokenizer, lines, params.max_tokens)["last"] for code, lines in parallel.sentences.items()}
    inner = compare(states, parallel, "last", section("seed", int))[1:]
    neurons = [place for place, module in components_of(network).items() if module is activation_of(network, place[0])]
    halves = {
        code: (
            importance(network, tokenizer, lines[::2], params.max_tokens // 4),
            importance(network, tokenizer, lines[1::2], params.max_tokens // 4),
        )
        for code, lines in parallel.sentences.items()
    }
    between, within = overlaps(halves, neurons, params.overlap_share)
    return {
        "recall": recall(tokenizer, probes, functools.partial(said_whole, network, max_tokens=params.max_tokens)),
        "retrieval": statistics.mean(each.retrieval_within.mean or 0.0 for each in inner),
        "chance": chance_within(parallel.groups),
        "cka": statistics.mean(each.cka.mean or 0.0 for each in inner),
        "overlap": between,
        "overlap_halves": within,
        "overlap_chance": overlap_chance(params.overlap_share),
    }


@contextlib.contextmanager
def editing_folder(folder: Path, checkpoint: Path, settings: dict[str, Any], inputs: dict[str, Path]) -> Iterator[None]:
    """Work in a folder whose params.yaml edits a checkpoint, with links to what it is to read: ``model`` and the names of ``inputs``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, path in {"model": checkpoint, **inputs}.items():
        (folder / name).symlink_to(path.absolute())
    values = settings | {
        "seed": section("seed", int),
        "runtime": section("runtime", dict),
        "model": {"name": "model", "files": "model", "revision": None, "dtype": "float32", "family": "known"},
    }
    write_bytes(folder / PARAMS, msgspec.json.encode(values))  # YAML holds JSON
    with contextlib.chdir(folder):
        yield


def edit() -> list[Reach]:
    """Run the editing stages in the current folder. Returns what each edit does in each language."""
    manifest, records = Path("model.json"), Path("records")
    model.main(manifest)
    prepare.main(records, Path("audit.json"))
    covariance.main(manifest, records / "covariance")
    languages, edits, methods = (section(f"grid.{name}", tuple[str, ...]) for name in ("languages", "edits", "methods"))
    for code in languages:
        out = records / "vectors" / f"{code}.safetensors"
        asked, reworded = records / "requests" / f"{code}.json", records / "rewordings" / f"{code}.json"
        vectors.main(manifest, asked, reworded, out, Path("reworded.safetensors"), Path("tokens.json"))
    probes = [records / "probes" / f"{code}.json" for code in languages]
    floor, update, scores = Path("floor.json"), Path("update.safetensors"), Path("scores.json")
    evaluate.main(manifest, probes, floor)
    before, found = read_json(floor, list[Score]), list[Reach]()
    for method, code in itertools.product(methods, edits):
        apply.main(method, code, manifest, records, update, Path("checks.json"))
        evaluate.main(manifest, probes, scores, update)
        after = read_json(scores, list[Score])
        found += [reach(method, code, asked, after, before) for asked in languages]
    return found


def sentence(found: Crossing) -> str:
    """Return what people read of a checkpoint in the log."""
    told = [f"{each.method} in {each.edited} moves {each.asked} by {each.shift:.2f} (control {each.control:.2f}) nats" for each in found.reach]
    return "; ".join([f"translations found {found.retrieval:.0%}", f"neurons shared {found.overlap.mean or 0:.2f}", *told])


if __name__ == "__main__":
    run(main)
