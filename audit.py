#!/usr/bin/env python3
"""Look at a data set before training: labels, images, duplicates, and leakage between the splits.

    python audit.py DATA -o audit
    python audit.py catalog.csv -o audit        (one table)
    python audit.py DATA --group contributor --strict        (for a pipeline: status 1 on leakage or unreadable images)
    python audit.py DATA --checkpoint output/train/RUN/model_best.pth.tar        (also products photographed twice)

DATA holds train.csv and, if there are, val.csv and test.csv. Each image is decoded once, in parallel processes. The
folder gets a page for people, audit.html, and a table for programs, findings.csv.
"""

from options.audit import parse_audit_args

if __name__ == "__main__":
    parse_audit_args(check_paths=True)

import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from catalog.audited_rows import AuditedRows, find_tables, read_audited_rows
from catalog.duplicate_findings import contradictions, exact_findings, group_findings, pair_findings
from catalog.finding import Finding
from catalog.image_facts import ImageFacts, collect_image_facts
from catalog.image_findings import Limits, image_findings
from catalog.label_counts import count_labels, count_pairs, count_whole_combinations
from catalog.label_findings import class_findings, combination_findings, table_findings
from catalog.label_space import SEPARATOR
from catalog.near_duplicates import Pairs, near_duplicates
from options.shared import processes
from reports.audit_page import Audit, write_audit_page
from reports.findings_file import describe, summary_lines, write_findings
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.log import set_up_log
from runtime.progress import announced, progress_bar
from training.flag_names import naming_flags

_logger = logging.getLogger("audit")


def main(argv: list[str] | None = None) -> None:
    """Audit as the command line says."""
    args = parse_audit_args(argv)
    set_up_log()
    with report_usage_errors("audit.py"), naming_flags("multi_valued", "separator", group_column="--group"):
        found = audit(args)
    if args.strict and found:
        raise SystemExit(1)


def audit(args: Namespace) -> bool:
    """Audit the tables and their images, and write the files; return whether there is an error among the findings."""
    if processes() > 1:
        raise UsageError("several processes would write one file: start a single process, without torchrun")
    page, file = Path(args.output) / "audit.html", Path(args.output) / "findings.csv"
    check_writable(page)
    check_writable(file)

    # tables and labels
    separator = args.separator or SEPARATOR
    rows = read_audited_rows(find_tables(args.input), args.attributes, args.multi_valued, args.group, separator)
    attributes = count_labels(rows)
    pairs = count_pairs(attributes)
    findings = [
        *table_findings(rows, attributes),
        *class_findings(rows, attributes, args.rare),
        *combination_findings(pairs),
        *group_findings(rows),
    ]

    # images
    workers = usable_cpus() if args.workers is None else args.workers
    try:
        facts = collect_image_facts(rows.files.to_pylist(), workers, show=True)
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that decodes was killed, most likely for lack of memory: lower --workers"
        ) from error
    limits = Limits(args.min_side, args.max_aspect, args.min_sharpness)
    findings += image_findings(rows, facts, limits)
    findings += duplicate_findings(args, rows, facts, workers)

    # files
    described = describe(findings, rows)
    texts = [text for _, text in described]
    result = Audit(
        title=" ".join(args.input),
        rows=rows,
        facts=facts,
        attributes=attributes,
        pairs=pairs,
        whole=count_whole_combinations(rows, attributes),
        rare=args.rare,
        findings=described,
        settings=settings_line(args),
    )
    write_findings(file, texts)
    write_audit_page(page, result)
    print("\n".join(summary_lines(texts, rows)))
    print(printable(f"Page: {page}  Findings: {file}"), flush=True)
    return any(text.severity == "error" for text in texts)


def duplicate_findings(args: Namespace, rows: AuditedRows, facts: ImageFacts, workers: int) -> Iterator[Finding]:
    """Yield the findings about images that occur twice: by pixels, by looks, and with a checkpoint by embedding."""
    images = np.flatnonzero(facts.readable & (facts.same == np.arange(len(facts.same))))
    with announced(f"Comparing {len(images):,} images", _logger.info):
        near = near_duplicates(facts.looks.take(images), args.similarity)
    near = Pairs(images[near.first], images[near.second], near.score, near.mirrored)
    yield from exact_findings(rows, facts)
    yield from pair_findings(rows, facts, near, "near", "correlation")
    yield from contradictions(rows, facts, near)
    if args.checkpoint and len(images):
        similar = embedding_pairs(args, rows.files.take(images).to_pylist(), workers)
        similar = Pairs(images[similar.first], images[similar.second], similar.score, similar.mirrored)
        yield from pair_findings(rows, facts, similar.without(near), "similar", "similarity")


def embedding_pairs(args: Namespace, files: list[str], workers: int) -> Pairs:
    """Return the pairs of files that the checkpoint's model represents almost equally."""
    # torch takes seconds to import, and only this needs it
    from serving.image_embeddings import embed_files, load_embedder, similar_pairs

    with naming_flags("device", model_ema="--use-ema"):
        ready = load_embedder(args.checkpoint, args.device, args.use_ema)
    with progress_bar(len(files), "Embedding", "image") as bar:
        embeddings = embed_files(ready, files, args.batch_size, workers, bar.update)
    return similar_pairs(embeddings, args.embedding_similarity)


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settings_line(args: Namespace) -> str:
    """Return the thresholds as a sentence."""
    line = (
        f"An image is tiny below {args.min_side} pixels, oddly shaped above a ratio of {args.max_aspect:g}, "
        f"and blurred below {args.min_sharpness:g}. Near duplicates correlate by {args.similarity:g} or more."
    )
    return line + (f" Similar images reach {args.embedding_similarity:g}." if args.checkpoint else "")


if __name__ == "__main__":
    main()
