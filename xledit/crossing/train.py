"""A world and its model: texts, tokenizer, shards and checkpoints of one seed, by the functions of the second half's stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xledit.crossing.results import Names
from xledit.crossing.settings import CrossingParams
from xledit.models.fuxitranyu import FAMILY
from xledit.models.loading import read_folder
from xledit.training.architecture import new_model
from xledit.training.bpe import Encoder, train
from xledit.training.mixture import EnglishHeavy
from xledit.training.packing import PackedWindows
from xledit.training.people import People
from xledit.training.pretrain import marks, pretrain
from xledit.training.shards import TokenShard, write_shard

# added to a world's seed: that of the persons whom the tokenizer has read about where names are in pieces
OTHERS = 1_000_000
# checkpoints: tokens seen, model and tokenizer, from the first to the last
Checkpoints = Iterator[tuple[int, PreTrainedModel, PreTrainedTokenizerBase]]


@contextmanager
def trained(world: People, params: CrossingParams, english: float, names: Names, seed: int) -> Iterator[Checkpoints]:
    """Train a model on what the world tells, and yield its checkpoints; all files are gone at the end of the context."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        texts = {code: [document["text"] for document in world.documents(code)] for code in params.people.languages}
        read = texts if names != "pieces" else of_others(world)
        tokenizer = train({code: iter(lines) for code, lines in read.items()}, params.tokenizer)
        tokenizer.save_pretrained(folder / "tokenizer")
        shards = {code: shard(tokenizer, lines, code, folder / "tokens", params.tokenizer.part_tokens) for code, lines in texts.items()}
        available = {code: int(shard.ends[-1]) for code, shard in shards.items()}
        wanted = EnglishHeavy(english=english).tokens_per_language(available, params.tokens)
        data = PackedWindows(shards, wanted, params.architecture.context, seed)
        model = new_model(params.architecture, len(tokenizer), seed)
        pretrain(model, tokenizer, data, params.pretrain, seed=seed, work=folder / "work", out=folder / "out")
        yield (
            (mark.tokens, *read_folder(folder / "out" / f"checkpoint-{mark.number}", "float32", "cpu", FAMILY))
            for mark in marks(folder / "out")
        )


def of_others(world: People) -> dict[str, list[str]]:
    """Return what the same sentences tell of other persons, none of whom has a name of the world's."""
    others, taken = People(world.params, world.seed + OTHERS), {person.name for person in world.persons}
    without = {fact_id for fact_id, fact in others.facts.items() if fact.person.name in taken}
    return {code: [document["text"] for document in others.documents(code, without=without)] for code in world.params.languages}


def tokens_per_name(tokenizer: PreTrainedTokenizerBase, world: People) -> dict[str, float]:
    """Return the mean number of tokens of a person's name at the beginning of a sentence, by language."""
    return {
        code: fmean(len(tokenizer(person.spelt(code), add_special_tokens=False).input_ids) for person in world.persons)
        for code in world.params.languages
    }


def shard(tokenizer: PreTrainedTokenizerFast, lines: list[str], code: str, folder: Path, part_tokens: int) -> TokenShard:
    """Return a language's texts as a shard on disk, each text ended by the end token, which is 0."""
    documents = (np.asarray((*ids, 0), dtype=np.uint32) for ids in Encoder(tokenizer).ids(lines))
    write_shard(folder / code, documents, code, part_tokens)
    return TokenShard.open(folder / code, len(tokenizer))
