"""The miniature: an invented language with planted structure, as corpus, pairs, benchmarks and tokenizer.

Writes `corpus.jsonl`, `train.jsonl` and `evaluation.jsonl` (one chosen and one rejected each), `rewardbench2.jsonl`, `rmbench.jsonl`,
`rewardbench2_raw.jsonl` (the official columns), tokenizer files, `concepts.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sarm.config.data import MiniatureConfig
from sarm.data.miniature.datasets import LanguageExhausted, PreferenceWriter, concept_labels, corpus, official_row
from sarm.data.miniature.language import build_language, concept_words
from sarm.data.miniature.word_tokenizer import CHAT_TEMPLATE, build_tokenizer, tokenizer_settings
from sarm.job import JobContext, UsageProblem
from sarm.store.json_lines import write_lines

# Positions that the tiny models are built for; far above the longest conversation (about 80 tokens).
LONGEST = 512


def make_miniature(config: MiniatureConfig, context: JobContext) -> None:
    """Write every file of a miniature; the same config gives the same bytes. Source: our own design, docs/miniature.md.

    Raises UsageProblem when more different prompts are asked for than the language has.
    """
    language = build_language(config.seed)
    writer = PreferenceWriter(language)
    try:
        # Benchmarks first: their prompts are the ones that must not come twice.
        benchmark = writer.rewardbench2(config.benchmark_rows, config.ties_prompts)
        styles = writer.rmbench(config.rmbench_items)
        evaluation = writer.pairs(config.evaluation_pairs, "evaluation")
        train = writer.pairs(config.training_pairs, "train")
    except LanguageExhausted as error:
        raise UsageProblem(f"{error}, or change profile.miniature") from error
    context.progress(1, 2, "stage", "pairs and benchmarks drawn")
    documents = corpus(language, config.corpus_documents)
    items = {"train": train, "evaluation": evaluation, "rewardbench2": benchmark, "rmbench": styles}
    write_lines(context.output / "corpus.jsonl", (document for document, _ in documents))
    for name, rows in items.items():
        write_lines(context.output / f"{name}.jsonl", (row.preference for row in rows))
    write_lines(context.output / "rewardbench2_raw.jsonl", [official_row(row.preference) for row in benchmark])
    labels = concept_labels(documents, items, concept_words(language))
    _write_json(context.output / "concepts.json", labels)
    _write_tokenizer(context.output, language.words())
    context.progress(2, 2, "stage", "written")
    context.log(f"{len(documents)} documents, {len(train)} + {len(evaluation)} pairs, {len(benchmark)} + {len(styles)} benchmark items")


def _write_tokenizer(folder: Path, words: list[str]) -> None:
    build_tokenizer(words).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_settings(LONGEST))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
