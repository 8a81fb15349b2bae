"""ROUGE-L for every script. The harness's own takes Latin letters and digits alone for words, so all other scripts would get 0."""

from collections.abc import Sequence

import regex
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Khmer}\p{Lao}\p{Myanmar}\p{Thai}"
# a character of a script that puts no space between words, with its marks; elsewhere a run of letters, marks and digits
WORD = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+")


class Words(Tokenizer):
    """Cuts text into words, or into characters where no spaces separate words."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words in lower case."""
        return WORD.findall(text.lower())


def rouge_l(references: Sequence[str], predictions: Sequence[str]) -> float:
    """Return the F measure of the longest common subsequence of words, from 0 to 1: what the harness asks of one document."""
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    scores = [scorer.score(one, other)["rougeL"].fmeasure for one, other in zip(references, predictions, strict=True)]
    return sum(scores) / len(scores)
