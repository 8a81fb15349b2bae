"""Sources -> one filtered, de-duplicated JSONL file per language, by datatrove, and what each step kept and dropped.

Mail addresses and public IP addresses are replaced by ones of example.com, whoever's they were.
Input is only parsed (JSON, Parquet, Arrow). datatrove pickles its own pipelines to hand them to other processes, on Slurm as
``executor.pik`` in the work folder: nobody else may be able to write there.
"""

import functools
import hashlib
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import multiprocess
import orjson
import regex
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.io import DataFolder, get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LambdaFilter, URLFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import HuggingFaceDatasetReader, JsonlReader, ParquetReader
from datatrove.pipeline.readers.base import BaseDiskReader, BaseReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WhitespaceTokenizer, strip_strings
from msgspec import Meta, Struct
from msgspec.structs import asdict

from xledit.storage import read_json, sha256, write_bytes
from xledit.training import catalog
from xledit.training.results import CorpusCounts, StepCounts

CHARACTER = regex.compile(r"\X")
BOUNDARY = regex.compile(r"(?w)\b")
Positive = Annotated[int, Meta(ge=1)]
Step = tuple[str, PipelineStep]
SOURCE = "source "


# settings: sources


def _state_of(folder: DataFolder, names: list[str]) -> list[str]:
    return [f"{name} {folder.ukey(name)}" for name in names]


class _Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Where text of one language lies.

    Of a row, what is under ``text_key`` and ``id_key`` and an object ``metadata`` are kept, and the address of the page under
    ``url_key``, which the URL filter needs (None: these texts have no address and pass it by). ``limit`` is how many rows each task
    reads at most, -1 for all. ``deduplicate`` is whether copies are dropped: not from text that repeats itself on purpose.
    """

    language: str
    text_key: str = "text"
    id_key: str = "id"
    url_key: str | None = None
    limit: int = -1
    deduplicate: bool = True

    def __post_init__(self) -> None:
        catalog.row(self.language)

    def _options(self) -> dict[str, Any]:
        adapter = functools.partial(_parse, url_key=self.url_key)
        return {"adapter": adapter, "text_key": self.text_key, "id_key": self.id_key, "limit": self.limit}


class _Files(_Source, frozen=True, kw_only=True):
    """A file or a folder, here or anywhere fsspec reads; of a folder all files, or those that match ``glob``."""

    path: str
    glob: str | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.language})"

    def files(self) -> tuple[DataFolder, list[str]]:
        """Return the folder and its files' names. Raises ValueError where there are none."""
        folder = get_datafolder(self.path)
        if folder.isfile(""):
            parent, _, name = self.path.rpartition("/")
            return get_datafolder(parent or "."), [name]
        names = folder.list_files(glob_pattern=self.glob)
        if not names:
            raise ValueError(f"{SOURCE}{self}: no files{f' that match {self.glob}' if self.glob else ''}; correct its path, or remove it")
        return folder, names

    def state(self) -> list[str]:
        """Return what changes when a file does: names with sizes and times."""
        return _state_of(*self.files())

    def _reader(self, kind: type[BaseDiskReader], listing: Path) -> BaseDiskReader:
        folder, names = self.files()
        write_bytes(listing, "".join(f"{name}\n" for name in names).encode())
        reader = kind(folder, paths_file=str(listing), **self._options())
        reader.add_file_path = False  # it would be absolute
        return reader


class Jsonl(_Files, frozen=True, kw_only=True, tag="jsonl"):
    """JSON lines, compressed or not."""

    def reader(self, listing: Path) -> BaseReader:
        """Return datatrove's reader."""
        return self._reader(_Lines, listing)


class Parquet(_Files, frozen=True, kw_only=True, tag="parquet"):
    """Parquet files."""

    def reader(self, listing: Path) -> BaseReader:
        """Return datatrove's reader."""
        return self._reader(_Tables, listing)


class Dataset(_Source, frozen=True, kw_only=True, tag="datasets"):
    """A data set of the datasets library: a folder here, or one on the hub, of which ``revision`` should name a commit.

    A newer one is not noticed otherwise. ``streaming`` reads without keeping a copy.
    """

    name: str
    config: str | None = None
    data_dir: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.language})"

    def state(self) -> list[str]:
        """Return what changes when a file of a folder here does; nothing for one on the hub."""
        folder = get_datafolder(self.name)
        return _state_of(folder, folder.list_files())

    def reader(self, _listing: Path) -> BaseReader:
        """Return datatrove's reader."""
        options = {"name": self.config, "data_dir": self.data_dir, "split": self.split, "revision": self.revision}
        return _Rows(self.name, options, self.streaming, **self._options())


Source = Jsonl | Parquet | Dataset


# settings: filters


class Quality(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gopher's rules of quality (arXiv 2112.11446, A.1.1) in datatrove's names and with its values; null turns one off.

    ``min_doc_words`` and ``max_doc_words`` bound a document's length, the ``avg_word_length`` ones the mean length of its words
    (characters). At most ``max_symbol_word_ratio`` hash signs or ellipses per word, ``max_bullet_lines_ratio`` of the lines
    begin with a bullet and ``max_ellipsis_lines_ratio`` end in an ellipsis; at least ``max_non_alpha_words_ratio`` (so it is called)
    of the words have a letter, and ``min_stop_words`` of ``stop_words`` occur. Where words are single characters, all
    that is per word means something else.
    """

    min_doc_words: Positive = 50
    max_doc_words: int | None = 100_000
    min_avg_word_length: float | None = 3
    max_avg_word_length: float | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    max_non_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = None
    stop_words: tuple[str, ...] = ()


class Repetition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gopher's rules of repetition (table A1): the largest share of a document that may repeat itself. Lower drops more.

    Lines and paragraphs that occurred before, by number and by characters; the characters of the most frequent n-gram of words
    (n, share), and of all n-grams that occurred before. datatrove counts the most frequent n-gram even where it occurs
    once: texts of few words need (n, share) pairs left out, or are dropped. Text made from patterns repeats itself more than prose.
    """

    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: tuple[tuple[Positive, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: tuple[tuple[Positive, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


class MinHash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When two documents count as one.

    Documents of Jaccard similarity s over their ``n_grams`` of words meet in one of ``num_buckets`` buckets with probability
    1 - (1 - s^h)^b, h being ``hashes_per_bucket``: few where s is below (1/b)^(1/h), 0.72 here, and most above. More buckets
    drop more, more hashes less. ``norm_numbers`` takes all numbers for the same, ``norm_unicode_diacritics`` letters with and
    without marks: texts that differ in a number, or in a vowel sign, are then copies.
    """

    n_grams: Positive = 5
    num_buckets: Positive = 14
    hashes_per_bucket: Positive = 8
    norm_numbers: bool = True
    norm_unicode_diacritics: bool = True

    def config(self) -> MinhashConfig:
        """Return datatrove's own."""
        norm = TextNormConfig(norm_numbers=self.norm_numbers, norm_unicode_diacritics=self.norm_unicode_diacritics)
        hashing = HashConfig(hash_fc="sha1")  # its default fails with xxhash 4 (huggingface/datatrove#508)
        return MinhashConfig(self.n_grams, self.num_buckets, self.hashes_per_bucket, norm_config=norm, hash_config=hashing)


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a language or a writing system is filtered; null leaves a step out."""

    quality: Quality | None
    repetition: Repetition | None
    minhash: MinHash


class Urls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What datatrove's URL filter drops pages by, and whether its own lists (adult sites) count. Needs tldextract and pyahocorasick."""

    extra_domains: tuple[str, ...] = ()
    extra_urls: tuple[str, ...] = ()
    banned_words: tuple[str, ...] = ()
    banned_subwords: tuple[str, ...] = ()
    soft_banned_words: tuple[str, ...] = ()
    soft_word_threshold: int = 2
    use_integrated_lists: bool = True


# settings: where it runs


class Local(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="local"):
    """One machine, the one that this runs on; ``workers`` tasks at once."""

    workers: Positive = 1

    def executor(self, pipeline: list, tasks: int, logs: str, _name: str) -> PipelineExecutor:
        """Return datatrove's executor."""
        # else each worker of each step imports all this anew: most of a second of CPU
        multiprocess.set_forkserver_preload([__name__])  # pyright: ignore[reportAttributeAccessIssue]
        return LocalPipelineExecutor(pipeline, tasks, min(self.workers, tasks), logs)


class Slurm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="slurm"):
    """A Slurm cluster, in datatrove's names; the work folder must be on a file system that all its machines see."""

    partition: str
    time: str
    workers: int = -1
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    tasks_per_job: int = 1
    qos: str = "normal"
    env_command: str | None = None
    sbatch_args: dict[str, str] = {}

    def executor(self, pipeline: list, tasks: int, logs: str, name: str) -> PipelineExecutor:
        """Return datatrove's executor; with ``sbatch --wait`` it comes back when the jobs have ended."""
        options: dict[str, Any] = asdict(self) | {"sbatch_args": self.sbatch_args | {"wait": ""}}
        return SlurmPipelineExecutor(pipeline, tasks, logging_dir=logs, job_name=name, **options)


class Ray(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="ray"):
    """A Ray cluster, in datatrove's names; the work folder must be on a file system that all its machines see."""

    workers: int = -1
    cpus_per_task: int = 1
    mem_per_cpu_gb: float = 2
    tasks_per_job: int = 1

    def executor(self, pipeline: list, tasks: int, logs: str, _name: str) -> PipelineExecutor:
        """Return datatrove's executor."""
        return RayPipelineExecutor(pipeline, tasks, logging_dir=logs, **asdict(self))


class CorpusParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``corpus`` section of the settings.

    ``rules`` has a row for each writing system (``spaced``, ``unspaced`` and ``code``: see the catalog), and for single languages by
    their code where these differ. ``word_lists`` names a text file by language: a document with one of its lines in it is dropped.
    ``tasks`` is into how many parts each language's files are dealt: at most that many can run at once, and the
    result depends on it (which of two copies stays). It does not depend on the executor's ``workers``.
    """

    rules: dict[str, Rules]
    word_lists: dict[str, str] = {}
    urls: Urls | None = None
    tasks: Positive = 1
    executor: Local | Slurm | Ray = Local()

    def __post_init__(self) -> None:
        for code in {*self.rules, *self.word_lists} - {"spaced", "unspaced", "code"}:
            catalog.row(code)


# what comes back


def build(sources: Sequence[Source], settings: CorpusParams, out: Path, work: Path) -> CorpusCounts:
    """Write ``out/<code>.jsonl.gz``, lines of ``{"text", "id", "metadata"}``, for each language that has a source; return the counts.

    The same sources and settings give the same bytes. What is done in part stays in ``work``, under a name of its own for each
    state of sources, settings and code, and is taken up again there.

    Raises:
        ValueError: no source, a source without files, with a row that is no JSON object or has no text, or without any text at
            all, no rules for a language, or nothing left of one. It names source and file.
        RuntimeError: a cluster's jobs did not all finish.
    """
    languages = {source.language: [each for each in sources if each.language == source.language] for source in sources}
    if not languages:
        raise ValueError("no sources; name at least one")
    # all of them first: a wrong path should not show after hours
    works = {code: work.resolve() / f"{code}-{_state(code, some, settings)}" for code, some in languages.items()}
    counts = {}
    for code, some in languages.items():
        counts[code] = _build_language(code, some, settings, works[code])
        _publish([works[code] / "kept", works[code] / "as-is"], out / f"{code}.jsonl.gz")
    return CorpusCounts(languages=counts)


def _build_language(code: str, sources: list[Source], settings: CorpusParams, work: Path) -> tuple[StepCounts, ...]:
    """Filter all sources and drop copies from those that are to be de-duplicated; return the counts, the last of all that is written."""
    filtered, signatures, pairs, removed, kept, as_is = (
        str(work / name) for name in ("filtered", "signatures", "pairs", "removed", "kept", "as-is")
    )

    def run(name: str, steps: list[Step], tasks: int = settings.tasks) -> list[StepCounts]:
        return _run(f"{code}-{name}", steps, tasks, work / "logs" / name, settings.executor)

    def filtering(name: str, some: list[Source], folder: str) -> list[StepCounts]:
        counts = run(name, [*_filters(code, some, settings, work / f"sources-{name}"), (Path(folder).name, _writer(folder))])
        for count in counts:
            if count.step.startswith(SOURCE) and not count.documents:
                raise ValueError(f"{count.step}: no text in it; correct its path or text_key, or remove it")
        if not counts[-1].documents:
            names = ", ".join(map(str, some))
            dropped = {count.step: count.dropped for count in counts if count.dropped}
            raise ValueError(f"{code}: nothing is left of {names}; dropped: {dropped}; loosen the rules for {code}, or remove its sources")
        return counts

    def read() -> Step:
        return "read", _Lines(filtered, add_file_path=False)

    whole = [source for source in sources if not source.deduplicate]
    counts = filtering("filter-as-is", whole, as_is) if whole else []
    written = counts[-1:]
    if compared := [source for source in sources if source.deduplicate]:
        counts += filtering("filter", compared, filtered)
        config = _rules(code, settings).minhash.config()
        words = _words(code, at_least=config.n_grams)
        run("signatures", [read(), ("signatures", MinhashDedupSignature(signatures, config, words))])  # pyright: ignore[reportArgumentType]
        run("pairs", [("pairs", MinhashDedupBuckets(signatures, pairs, config=config))], config.num_buckets)
        run("clusters", [("clusters", MinhashDedupCluster(pairs, removed, config))], 1)
        # in as many tasks as the signatures: MinHash knows a document by its task and place
        _read, *rest = run("keep", [read(), ("duplicates", MinhashDedupFilter(removed)), ("kept", _writer(kept))])
        counts += rest
        written.append(rest[-1])
    if len(written) > 1:
        documents, sizes = sum(count.documents for count in written), [count.bytes for count in written]
        counts.append(StepCounts(step="written", documents=documents, characters=None, bytes=sum(size or 0 for size in sizes), dropped={}))
    return tuple(counts)


def _filters(code: str, sources: list[Source], settings: CorpusParams, work: Path) -> list[Step]:
    rules, words = _rules(code, settings), _words(code)
    reads = [(source, (f"{SOURCE}{source}", source.reader(work / f"source-{number}.txt"))) for number, source in enumerate(sources)]
    steps: list[Step] = [step for source, step in reads if settings.urls and source.url_key]
    others = [step for _source, step in reads if step not in steps]
    if settings.urls and steps:
        steps.append(("urls", _url_filter(settings.urls)))
    steps += others  # a reader first hands on what the steps before it give, so the filter sees none of these
    if code in settings.word_lists:
        banned = regex.compile(r"(?wi)\b\L<words>\b", words=_word_list(settings.word_lists[code]))
        steps.append(("words", LambdaFilter(functools.partial(_has_none_of, banned))))
    if rules.quality:
        steps.append(("quality", GopherQualityFilter(**asdict(rules.quality), language=words)))  # pyright: ignore[reportArgumentType]
    if rules.repetition:
        steps.append(("repetition", GopherRepetitionFilter(**asdict(rules.repetition), language=words)))  # pyright: ignore[reportArgumentType]
    return [*steps, ("addresses", PIIFormatter())]


def _words(code: str, at_least: int = 0) -> "Words":
    return Words(catalog.row(code).writing == "unspaced", at_least)


def _rules(code: str, settings: CorpusParams) -> Rules:
    writing = catalog.row(code).writing
    if not {code, writing} & settings.rules.keys():
        raise ValueError(f"rules: none for {code!r}, nor for {writing!r}, how it is written; they are for: {', '.join(settings.rules)}")
    return settings.rules.get(code) or settings.rules[writing]


def _state(code: str, sources: list[Source], settings: CorpusParams) -> str:
    """Return a name for all that a language's result depends on."""
    code_files = [sha256(Path(path)) for path in (__file__, catalog.__file__)]
    versions = [version(name) for name in ("datatrove", "regex")]
    words = _word_list(settings.word_lists[code]) if code in settings.word_lists else ()
    found = [code, sources, [source.state() for source in sources], _rules(code, settings), words, settings.urls, settings.tasks]
    return hashlib.sha256(msgspec.json.encode([found, code_files, versions], order="sorted")).hexdigest()[:16]


def _run(name: str, steps: list[Step], tasks: int, logs: Path, where: Local | Slurm | Ray) -> list[StepCounts]:
    """Run what is not done yet of a pipeline and return its counts, from the statistics that datatrove keeps of each task."""
    executor = where.executor([step for _name, step in steps], tasks, str(logs), name)
    failure = None
    try:
        executor.run()
    except subprocess.CalledProcessError as error:  # sbatch --wait fails with any of its jobs
        failure = error
    if missing := executor.get_incomplete_ranks(skip_completed=True):
        raise RuntimeError(
            f"{logs}: tasks {missing} did not finish; read their logs there and run again: what is done is kept"
        ) from failure
    # of each task: the sum of all tasks that datatrove writes lacks those that an earlier run finished
    totals = [Counter[str]() for _ in steps]
    for rank in range(tasks):
        for total, step in zip(totals, read_json(logs / "stats" / f"{rank:05d}.json", list[_Stats]), strict=True):
            total.update({label: int(each["total"] if isinstance(each, dict) else each) for label, each in step.stats.items()})
    return [_count(step, total) for step, total in zip(steps, totals, strict=True)]


class _Stats(Struct):
    stats: dict[str, float | dict[str, Any]]


def _count(named: Step, total: Counter[str]) -> StepCounts:
    name, step = named
    label = "documents" if isinstance(step, BaseReader) else "total" if isinstance(step, JsonlWriter | PIIFormatter) else "forwarded"
    reasons = {reason.removeprefix("dropped_"): number for reason, number in total.items() if reason.startswith("dropped_")}
    return StepCounts(
        step=name,
        documents=total[label],
        characters=total.get("doc_len"),
        bytes=total.get("bytes"),
        dropped=reasons or ({name: total["dropped"]} if total["dropped"] else {}),
    )


def _publish(folders: Sequence[Path], path: Path) -> None:
    """Put the gzip files of the folders end to end, which is a gzip file, without the time in their headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as whole:
        for part in (part for folder in folders for part in sorted(folder.glob("*.jsonl.gz"))):
            with part.open("rb") as member:
                whole.write(member.read(4) + bytes(4))  # RFC 1952: bytes 4 to 7 are the time, 0 is none
                member.seek(8)
                shutil.copyfileobj(member, whole)
    unfinished.replace(path)


# what the pipelines are made of


class Words(WhitespaceTokenizer):
    """Words by Unicode's rule (UAX 29), or single characters (grapheme clusters) where no spaces separate words.

    datatrove takes it in place of a language's code, and so loads none of its own, which need spaCy, Stanza and others. Like there,
    a punctuation mark is a word. A text of fewer than ``at_least`` words is filled up with empty ones: MinHash would find no
    n-gram in it and keep all its copies.
    """

    def __init__(self, characters: bool, at_least: int = 0) -> None:
        super().__init__()
        self.characters, self.at_least = characters, at_least

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words in their order."""
        words = strip_strings(CHARACTER.findall(text) if self.characters else BOUNDARY.split(text))
        return words + [""] * (self.at_least - len(words))


class _Lines(JsonlReader):
    """JSON lines. Where datatrove logs a line that it cannot read and goes on, or leaves the rest of the file, this stops."""

    def read_file(self, filepath: str) -> Generator[Document, None, None]:
        with _named(self.data_folder.resolve_paths(filepath)), self.data_folder.open(filepath, compression=self.compression) as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise ValueError(f"line {number} is not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is JSON, but no object")
                document = self.get_document_from_dict(row, filepath, number)
                if document:
                    yield document


class _Tables(ParquetReader):
    def read_file(self, filepath: str) -> Generator[Document, None, None]:
        with _named(self.data_folder.resolve_paths(filepath)):
            yield from super().read_file(filepath)


class _Rows(HuggingFaceDatasetReader):
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Generator[Document, None, None]:
        yield from data or ()  # with errors of its own
        with _named(self.dataset):
            yield from super().run(None, rank, world_size)


@contextmanager
def _named(source: object) -> Iterator[None]:
    """Say in any error, a decompressor's or a parser's, what could not be read."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{source}: {error}; mend it, or correct its row in the sources, or remove that") from error


def _parse(self: BaseReader, row: dict, path: str, number: int | str, *, url_key: str | None) -> dict:
    """Return what a document is made of. Raises ValueError for a row without text; one whose text is blank is dropped and counted."""
    text = row.get(self.text_key)
    if not isinstance(text, str):
        raise ValueError(f"row {number} has no text under {self.text_key!r}, only {', '.join(row) or 'nothing'}; set text_key, or mend it")
    if not text.strip():
        self.stat_update("dropped_empty")
        return {}
    metadata = row.get("metadata")
    # the writer would take a "rank" from here for its file's name, wherever that leads
    metadata = {key: value for key, value in metadata.items() if key != "rank"} if isinstance(metadata, dict) else {}
    if url_key:
        metadata["url"] = row.get(url_key)
        if not isinstance(metadata["url"], str) or not metadata["url"]:
            raise ValueError(f"row {number} has no address under {url_key!r}; correct url_key, or leave it out")
    self.stat_update("bytes", value=len(text.encode()))
    found = row.get(self.id_key)
    return {"text": text, "id": f"{path}/{number}" if found is None else str(found), "metadata": metadata}


def _writer(folder: str) -> JsonlWriter:
    return JsonlWriter(folder, adapter=_row)


def _row(self: JsonlWriter, document: Document) -> dict:
    self.stat_update("bytes", value=len(document.text.encode()))
    return {"text": document.text, "id": document.id, "metadata": document.metadata}


def _url_filter(urls: Urls) -> URLFilter:
    found = URLFilter(**asdict(urls))
    from tldextract import TLDExtract  # pyright: ignore[reportMissingImports]

    found.tldextractor = TLDExtract(suffix_list_urls=())  # the list that comes with it; else it fetches today's
    return found


def _word_list(path: str) -> tuple[str, ...]:
    try:
        words = {line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"word_lists: {path}: {error}; it must be a text file in UTF-8, a word a line") from error
    if not words:
        raise ValueError(f"word_lists: {path}: no word in it; put one on each line, or leave the list out")
    return tuple(sorted(words))


def _has_none_of(words: regex.Pattern[str], document: Document) -> bool:
    return not words.search(document.text)
