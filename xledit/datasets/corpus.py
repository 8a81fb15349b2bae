"""Running text per language, for the statistics of keys: a text file, or any data set of the datasets library."""

from collections.abc import Mapping
from pathlib import Path

PREFIX = "datasets:"
# passages are taken from the start of a data set; the token limit of the run cuts further
MAX_PASSAGES = 100_000


def read_texts(code: str, corpus: Mapping[str, str]) -> list[str]:
    """Return the passages of the language's corpus, none of them blank.

    Raises ValueError when the language has no corpus, the file is missing, empty or not UTF-8, or the library is not installed.
    """
    if code not in corpus:
        raise ValueError(f"covariance.corpus: no text for language {code!r}; it has: {', '.join(corpus)}")
    source = corpus[code]
    if source.startswith(PREFIX):
        return _from_datasets(source.removeprefix(PREFIX))
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: covariance.corpus.{code}: no such file") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); save the text as UTF-8") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{path}: covariance.corpus.{code}: the file has no text")
    return texts


def _from_datasets(name: str) -> list[str]:
    """Return the ``text`` column of the training split; ``name`` is a hub name, a local folder or a file, ``@CONFIG`` optional."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ValueError("covariance.corpus: reading a data set needs the datasets library; run `pip install -e .[datasets]`") from error
    path, _, config = name.partition("@")
    try:
        rows = load_dataset(path, config or None, split="train", streaming=True)
        texts = [row["text"] for row in rows.take(MAX_PASSAGES)]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"covariance.corpus: the data set {name!r} cannot be read, or has no column `text` ({error})") from error
    return [text for text in texts if text.strip()]
