"""Running text per language, for the statistics of keys and for watching a model: a text file, or any data set of the datasets library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "datasets:"
# passages are taken from the start of a data set; the token limit of the run cuts further
MAX_PASSAGES = 100_000
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def read_texts(code: str, corpus: Mapping[str, str], setting: str = "covariance.corpus") -> list[str]:
    """Return the passages of the language's text, none of them blank. ``setting`` is where params.yaml names it.

    Raises ValueError when the language has no corpus, the file is missing, empty or not UTF-8, or the library is not installed.
    """
    if code not in corpus:
        raise ValueError(f"{setting}: no text for language {code!r}; it has: {', '.join(corpus)}")
    source = corpus[code]
    if source.startswith(PREFIX):
        return _from_datasets(source.removeprefix(PREFIX))
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {setting}.{code}: no such file") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); save the text as UTF-8") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{path}: {setting}.{code}: the file has no text")
    return texts


def _from_datasets(name: str) -> list[str]:
    """Return the ``text`` column of the training split; ``name`` is a hub name, a local folder or a file, ``@CONFIG`` optional."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ValueError("covariance.corpus: reading a data set needs the datasets library; run `pip install -e .[datasets]`") from error
    path, _, config = name.partition("@")
    # a file is read by the builder of its kind, which takes it as the training split
    builder = BUILDERS.get(Path(path).suffix) if Path(path).is_file() else None
    options: dict[str, Any] = {"path": builder, "data_files": path} if builder else {"path": path, "name": config or None}
    try:
        rows = load_dataset(**options, split="train", streaming=True)
        found = [row["text"] for row in rows.take(MAX_PASSAGES)]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise ValueError(f"covariance.corpus: the data set {name!r} cannot be read, or has no column `text` ({error})") from error
    texts = [text for text in found if isinstance(text, str) and text.strip()]
    if not texts:
        raise ValueError(f"covariance.corpus: the data set {name!r} has no text in its column `text`")
    return texts
