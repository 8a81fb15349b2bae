"""The counts of an audit of our own benchmark, for the page: plain structs."""

import msgspec


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of our own benchmark.

    ``domains`` counts facts by split, ``splits`` relations; ``china`` counts facts whose
    subject is specific to China; ``probes`` counts facts that have a kind of probe, by language; ``key_collisions`` counts facts that
    share their text up to the subject, by order and language; ``lengths`` are mean tokens; ``same_length`` is the share of
    new answers with as many tokens as the true one; ``checks`` are the counts that ``rows.CHECKS`` gives for any data set.
    """

    num_facts: int
    num_relations: int
    china: int
    domains: dict[str, dict[str, int]]
    splits: dict[str, int]
    relations: dict[str, dict[str, int]]
    probes: dict[str, dict[str, int]]
    key_collisions: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, float]]
    same_length: dict[str, float]
    checks: dict[str, dict[str, int]]


class BenchmarkAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What `make audit` writes: our benchmark's stock, how many rows break each rule, and CLM-Bench's counts by the same checks."""

    benchmark: Inventory
    findings: dict[str, int]
    clm_bench: dict[str, dict[str, int]]
    clm_bench_facts: int
