"""Corpus -> tokenizer, token shards per language, and how many tokens each language takes, beside another model's tokenizer."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from transformers import AutoTokenizer

from stages.common.runner import log, run, wrote
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import write_json
from xledit.training.bpe import Documents, Encoder, TokenizerParams, divided, train
from xledit.training.catalog import NATURAL
from xledit.training.shards import write_shard


class Line(msgspec.Struct):
    """A document of the corpus."""

    text: str


class ReferenceParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.reference`` section of params.yaml: the model whose tokenizer ours is set beside, as ``model`` names one."""

    name: str
    files: str


def main(
    corpus: Annotated[Path, typer.Option(help="folder with a file per language")],
    out: Annotated[Path, typer.Option(help="folder for the tokenizer")],
    out_tokens: Annotated[Path, typer.Option(help="folder for token shards, a folder per language")],
    out_counts: Annotated[Path, typer.Option(help="JSON: tokens and fertility by language")],
) -> None:
    files = {path.name.removesuffix(".jsonl.gz"): path for path in sorted(corpus.glob("*.jsonl.gz"))}
    params = section("tranyu.tokenizer", TokenizerParams)
    read = NATURAL.keys() & section("tranyu.run.languages", tuple[str, ...])
    tokenizer = train({code: (each.text for each in divided(texts(path)) if each.trained) for code, path in files.items()}, params, read)
    tokenizer.save_pretrained(out)
    other = section("tranyu.reference", ReferenceParams)
    folder, _kind = resolve(ModelParams(name=other.name, files=other.files, revision=None, dtype="float32", family="known"))
    encoder, reference = Encoder(tokenizer), Encoder(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    counts = {}
    for code, path in files.items():
        documents = Documents(divided(texts(path)), encoder, reference)
        write_shard(out_tokens / code, documents, code, params.part_tokens)
        counts[code] = documents.counts()
    write_json(out_counts, counts)
    log.info(
        "%d tokens, %d in the corpus, %d languages",
        len(tokenizer),
        sum(each.tokens for each in counts.values()),
        len(NATURAL.keys() & counts),
    )
    wrote(out_counts)


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a corpus file. Raises ValueError that names file and line where one is damaged."""
    number = 0
    with gzip.open(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):  # noqa: B007 (the error says it)
                yield msgspec.json.decode(line, type=Line).text
        except (EOFError, gzip.BadGzipFile, msgspec.DecodeError) as error:
            raise ValueError(f"{path}, after line {number}: {error}; delete it and run `dvc repro` again") from error


if __name__ == "__main__":
    run(main)
