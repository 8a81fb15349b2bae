"""The audit of our own benchmark: the rows that break a rule, and its counts beside CLM-Bench's by the same checks (reports/audit.json)."""

from collections import Counter
from pathlib import Path

from transformers import AutoTokenizer

from xledit.benchmark.inventory import take_stock
from xledit.benchmark.results import BenchmarkAudit
from xledit.benchmark.rules import ROW_RULES, SET_RULES, Finding, findings
from xledit.benchmark.tables import read_tables
from xledit.datasets import clm_bench
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import read_json, write_json

LANGUAGES = ("zh", "en")


def audit_benchmark(folder: Path, clm_bench_folder: Path | None, out: Path) -> tuple[list[Finding], BenchmarkAudit]:
    """Return the rows that break a rule, and the counts, which are also written to ``out``.

    CLM-Bench has no licence and is not in this repository: without a copy of its files, its counts are read from ``out``.
    """
    relations = read_tables(folder, LANGUAGES)
    rules = ROW_RULES | SET_RULES
    broken = findings(relations, rules)
    if clm_bench_folder:
        _facts, counted = clm_bench.read(clm_bench_folder, LANGUAGES)
        defects, num_facts = counted.defects, counted.num_read
    else:
        kept = read_json(out, BenchmarkAudit)
        defects, num_facts = kept.clm_bench, kept.clm_bench_facts
    tokenizer = AutoTokenizer.from_pretrained(resolve(section("model", ModelParams))[0], trust_remote_code=False)
    stock = take_stock(relations, section("seed", int), lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))
    counts = Counter(finding.rule for finding in broken)
    audit = BenchmarkAudit(benchmark=stock, findings={name: counts[name] for name in rules}, clm_bench=defects, clm_bench_facts=num_facts)
    write_json(out, audit)
    return broken, audit
