"""A world and its model: texts, tokenizer, shards and checkpoints of one seed, by the functions of the second half's stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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

# checkpoints: tokens seen, model and tokenizer, from the first to the last
Checkpoints = Iterator[tuple[int, PreTrainedModel, PreTrainedTokenizerBase]]


@contextmanager
def trained(world: People, params: CrossingParams, english: float, seed: int) -> Iterator[Checkpoints]:
    """Train a model on what the world tells, and yield its checkpoints; all files are gone at the end of the context."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        texts = {code: [document["text"] for document in world.documents(code)] for code in params.people.languages}
        tokenizer = train({code: iter(lines) for code, lines in texts.items()}, params.tokenizer)
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


def shard(tokenizer: PreTrainedTokenizerFast, lines: list[str], code: str, folder: Path, part_tokens: int) -> TokenShard:
    """Return a language's texts as a shard on disk, each text ended by the end token, which is 0."""
    documents = (np.asarray((*ids, 0), dtype=np.uint32) for ids in Encoder(tokenizer).ids(lines))
    write_shard(folder / code, documents, code, part_tokens)
    return TokenShard.open(folder / code, len(tokenizer))
