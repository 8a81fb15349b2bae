"""Token shards of many languages -> packed training windows, by index: the same inputs and seed give the same windows.

Each language's documents are shuffled anew for every pass over them, and the languages' streams are merged in proportion: wherever
the run stands, each language has had its share of all tokens, to within a document of each. A language that is asked for more than it has
is repeated pass by pass, so a document never comes back before all others of its language have been seen.
"""

import hashlib
from collections.abc import Mapping

import msgspec
import numpy as np
from torch.utils.data import Dataset

from xledit.training.shards import TokenShard

# a label that no loss is computed for
NO_LABEL = -100


class PackedWindows(Dataset[dict[str, np.ndarray]]):
    """Windows of ``context`` tokens, by index: documents of all languages end to end, the rest that fills no window dropped.

    A window is ``input_ids``, ``position_ids`` (from 0 at each document's beginning and at the window's, which is how transformers
    keeps documents from seeing each other where no attention mask is given), ``labels`` (``NO_LABEL`` where the position is 0: nothing
    tells the first token) and ``languages`` (the place in ``self.languages`` of each token's), all int64 ``[context]``.

    ``tokens`` are how many of each language to take; the last document is taken whole, so it may be some more.
    ``digest`` changes with anything that changes a window. In memory are some 20 bytes per document, and the shards' ends.

    Raises ValueError for a language without a shard, or when there are not enough tokens for one window.
    """

    def __init__(self, shards: Mapping[str, TokenShard], tokens: Mapping[str, int], context: int, seed: int) -> None:
        self.languages = tuple(sorted(code for code, number in tokens.items() if number))
        missing = sorted(set(self.languages) - shards.keys())
        if missing:
            raise ValueError(f"no token shard of {', '.join(missing)}; give the language a source, or leave it out of the mixture")
        self.context = context
        self._shards = [shards[code] for code in self.languages]
        streams = [_stream(shard.ends, tokens[code], seed, code) for code, shard in zip(self.languages, self._shards, strict=True)]
        order = np.argsort(np.concatenate([when for _, _, when in streams]), kind="stable")
        self._documents = np.concatenate([documents for documents, _, _ in streams])[order]
        self._ends = np.cumsum(np.concatenate([lengths for _, lengths, _ in streams])[order])
        self._language = np.repeat(np.arange(len(streams), dtype=np.uint16), [len(documents) for documents, _, _ in streams])[order]
        if self._ends[-1] < context:
            raise ValueError(f"{self._ends[-1]} tokens do not fill one window of {context}; raise the budget or shorten the context")
        made_of = [context, seed, [(code, tokens[code], shards[code].digest) for code in self.languages]]
        self.digest = hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1]) // self.context

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = index * self.context, (index + 1) * self.context
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        places = range(first, last + 1)
        bounds = np.concatenate([[start], self._ends[first:last], [stop]])
        pieces = []
        for place, begin, end in zip(places, bounds, bounds[1:], strict=False):
            shard = self._shards[self._language[place]]
            shift = int(shard.ends[self._documents[place]] - self._ends[place])
            pieces.append(shard.read(int(begin) + shift, int(end) + shift))
        lengths = np.diff(bounds)
        input_ids = np.concatenate(pieces).astype(np.int64)
        position_ids = np.arange(start, stop) - np.repeat(bounds[:-1], lengths)
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "labels": np.where(position_ids == 0, NO_LABEL, input_ids),
            "languages": np.repeat(self._language[first : last + 1], lengths).astype(np.int64),
        }

    def taken(self, windows: int) -> dict[str, int]:
        """Return how many tokens of each language the first windows hold."""
        lengths = np.diff(np.minimum(self._ends, windows * self.context), prepend=0)
        return dict(zip(self.languages, np.bincount(self._language, lengths, len(self.languages)).astype(int).tolist(), strict=True))


def _stream(ends: np.ndarray, number: int, seed: int, code: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a language's documents in the order they are seen, their lengths, and when in the run (0 to 1) each one's turn comes."""
    random = np.random.default_rng([seed, *code.encode()])  # no language's order depends on what other languages there are
    all_lengths = np.diff(ends, prepend=0)
    passes, rest = divmod(number, int(ends[-1]))
    orders = [random.permutation(len(ends)) for _ in range(passes)]
    if rest:
        order = random.permutation(len(ends))
        orders.append(order[: np.searchsorted(np.cumsum(all_lengths[order]), rest) + 1])
    documents = np.concatenate(orders)
    lengths = all_lengths[documents]
    until = np.cumsum(lengths)
    # a document's turn is at a random one of its tokens, or languages of equal documents would march in step
    return documents, lengths, (until - lengths * random.random(len(lengths))) / until[-1]
