"""Hold our own benchmark against every rule, count what it holds, and write reports/audit.json: `make audit`.

CLM-Bench's counts by the same checks stand beside ours. They are counted anew where ``--clm-bench`` names a copy of its files (it has
no licence and is not in this repository), and kept from the last time otherwise. Exits with 1 when a row breaks a rule.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from transformers import AutoTokenizer

from xledit.benchmark.inventory import take_stock
from xledit.benchmark.results import BenchmarkAudit
from xledit.benchmark.rules import ROW_RULES, SET_RULES, findings
from xledit.benchmark.tables import read_tables
from xledit.datasets import clm_bench
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import read_json, write_json

LANGUAGES = ("zh", "en")


def main() -> int:
    """Print what breaks a rule, by file and line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data/benchmark"))
    parser.add_argument("--clm-bench", type=Path, help="folder with CLM-Bench's three files")
    parser.add_argument("--out", type=Path, default=Path("reports/audit.json"))
    arguments = parser.parse_args()
    relations = read_tables(arguments.folder, LANGUAGES)
    rules = ROW_RULES | SET_RULES
    found = findings(relations, rules)
    for finding in found:
        print(finding)
    if arguments.clm_bench:
        _facts, counted = clm_bench.read(arguments.clm_bench, LANGUAGES)
        defects, num_facts = counted.defects, counted.num_read
    else:
        kept = read_json(arguments.out, BenchmarkAudit)
        defects, num_facts = kept.clm_bench, kept.clm_bench_facts
    tokenizer = AutoTokenizer.from_pretrained(resolve(section("model", ModelParams))[0], trust_remote_code=False)
    stock = take_stock(relations, section("seed", int), lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))
    counts = Counter(finding.rule for finding in found)
    audit = BenchmarkAudit(benchmark=stock, findings={name: counts[name] for name in rules}, clm_bench=defects, clm_bench_facts=num_facts)
    write_json(arguments.out, audit)
    print(f"{stock.num_facts} facts, {stock.num_relations} relations, {len(found)} rows break a rule; wrote {arguments.out}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
