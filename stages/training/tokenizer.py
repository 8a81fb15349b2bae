"""Corpus -> tokenizer, token shards per language, and how many tokens each language takes, beside another model's tokenizer."""

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from transformers import AutoTokenizer

from stages.common.runner import log, run, wrote
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import write_json, write_tensors
from xledit.training.bpe import TokenizerParams, encode, fertility, train
from xledit.training.catalog import NATURAL
from xledit.training.results import LanguageTokens

# one text in so many is kept from the tokenizer, to measure its fertility on
EVERY = 10


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
    out_tokens: Annotated[Path, typer.Option(help="folder for token shards")],
    out_counts: Annotated[Path, typer.Option(help="JSON: tokens and fertility by language")],
) -> None:
    files = {path.name.removesuffix(".jsonl.gz"): path for path in sorted(corpus.glob("*.jsonl.gz"))}
    read = NATURAL.keys() & section("tranyu.run.languages", tuple[str, ...])
    tokenizer = train(
        {code: parts(path, held_out=False) for code, path in files.items()}, section("tranyu.tokenizer", TokenizerParams), read
    )
    tokenizer.save_pretrained(out)
    other = section("tranyu.reference", ReferenceParams)
    folder, _kind = resolve(ModelParams(name=other.name, files=other.files, revision=None, dtype="float32", family="known"))
    reference = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    counts = {}
    for code, path in files.items():
        tokens, ends = encode(tokenizer, texts(path))
        write_tensors(out_tokens / f"{code}.safetensors", {"tokens": tokens, "ends": ends}, {"language": code})
        counts[code] = LanguageTokens(
            documents=len(ends),
            bytes=sum(len(text.encode()) for text in texts(path)),
            tokens=len(tokens),
            fertility=fertility(tokenizer, parts(path, held_out=True)),
            reference=fertility(reference, parts(path, held_out=True)),
        )
    write_json(out_counts, counts)
    log.info(
        "%d tokens, %d in the corpus, %d languages",
        len(tokenizer),
        sum(each.tokens for each in counts.values()),
        len(NATURAL.keys() & counts),
    )
    wrote(out_counts)


def parts(path: Path, *, held_out: bool) -> Iterator[str]:
    """Yield every tenth text, which the tokenizer is not trained on, or the nine others; both times all, where there are fewer than ten."""
    few = next(islice(texts(path), EVERY - 1, None), None) is None
    return (text for number, text in enumerate(texts(path)) if few or (number % EVERY == EVERY - 1) == held_out)


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
