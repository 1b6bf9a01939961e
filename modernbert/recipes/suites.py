"""Suites: many data sets, each with its recipe and where it lies, that are run as one job with one table.

`modernbert eval glue MODEL DATA` is GLUE as the paper did it; `modernbert bench finetune MODEL DATA` everything that models here are tuned
on. DATA is a folder that holds a folder for each set: in the layout of the hub's nyu-mll/glue, or with `glue_sst2/train.jsonl.gz` and
so on. A set that is not there is left out, and the table says so.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

from modernbert.data.labelled import (
    Source,
    candidates_to_choices,
    records_to_question,
    spans_to_labels,
    spans_to_tags,
    with_candidates,
    with_degree,
    with_sentence,
)
from modernbert.eval.lookup import LONGEST_VALUE
from modernbert.recipes import finetune as recipes
from modernbert.recipes.retrieval import reranking
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.train.finetune import FinetuneConfig
from modernbert.train.suite import Member

_PAIR = {"text_a": "sentence1", "text_b": "sentence2"}
_INFERENCE = ("entailment", "neutral", "contradiction")


_LARGE = {
    "mnli": (3e-5, 1e-5, 1, 0.908),
    "cola": (3e-5, 8e-6, 5, 0.714),
    "sst2": (1e-5, 1e-6, 3, 0.971),
    "mrpc": (8e-5, 5e-6, 2, 0.917),
    "stsb": (8e-5, 1e-5, 10, 0.928),
    "qqp": (5e-5, 8e-6, 2, 0.927),
    "qnli": (3e-5, 5e-6, 2, 0.952),
    "rte": (5e-5, 8e-6, 3, 0.921),
}
"""Learning rate, weight decay and epochs that were best for ModernBERT-large, and its score (tables 5 and 6; facts §3.1)."""


def glue(size: Literal["base", "large"] = "base") -> tuple[Member, ...]:
    """GLUE's dev sets with the best settings of ModernBERT of a size, four seeds; RTE, MRPC and STS-B begin from the MNLI model.

    WNLI is left out, as in the paper; MNLI is measured on the matched rows. `published` is what the paper has (table 5; facts §3.1).
    """
    members = _glue_base()
    if size == "base":
        return members
    return tuple(
        dataclasses.replace(
            member,
            config=dataclasses.replace(member.config, learning_rates=(rate,), weight_decay=decay, epochs=epochs),
            published=published,
        )
        for member in members
        for rate, decay, epochs, published in (_LARGE[member.name],)
    )


def _glue_base() -> tuple[Member, ...]:
    return (
        _glue("mnli", recipes.mnli(), {"text_a": "premise", "text_b": "hypothesis"}, 0.891, classes=_INFERENCE),
        _glue("cola", recipes.cola(), {"text": "sentence"}, 0.651),
        _glue("sst2", recipes.sst2(), {"text": "sentence"}, 0.960),
        _glue("mrpc", recipes.mrpc(), _PAIR, 0.922, begins_from="mnli"),
        _glue("stsb", recipes.stsb(), {**_PAIR, "score": "label"}, 0.918, begins_from="mnli"),
        _glue("qqp", recipes.qqp(), {"text_a": "question1", "text_b": "question2"}, 0.921),
        _glue("qnli", recipes.qnli(), {"text_a": "question", "text_b": "sentence"}, 0.939),
        _glue("rte", recipes.rte(), _PAIR, 0.874, begins_from="mnli"),
    )


_TINY = {
    "mnli": (4, 32, 3e-4, None),
    "pairs": (2, 64, 3e-4, None),
    "cola": (8, 32, 2e-4, None),
    "sst2": (3, 32, 2e-4, None),
    "mrpc": (8, 32, 1e-4, None),
    "stsb": (8, 32, 3e-4, None),
    "qnli": (10, 32, 1e-4, None),
    "rte": (10, 32, 1e-4, None),
    "imdb": (4, 32, 3e-4, None),
    "banking77": (10, 32, 3e-4, None),
    "trec_fine": (12, 32, 3e-4, None),
    "tweet_emotion": (10, 32, 3e-4, None),
    "tweet_hate": (5, 32, 3e-4, None),
    "tweet_irony": (10, 32, 3e-4, None),
    "tweet_offensive": (4, 32, 3e-4, None),
    "quora": (6, 32, 3e-4, None),
    "pii_kinds": (30, 32, 3e-4, None),
    "clear": (10, 32, 3e-4, None),
    "clear_frozen": (20, 256, 1e-3, None),
    "wnut17": (12, 32, 3e-4, None),
    "bc5cdr": (12, 32, 3e-4, None),
    "ncbi_disease": (10, 32, 3e-4, None),
    "wikiann_en": (6, 32, 3e-4, None),
    "pii": (30, 32, 3e-4, None),
    "squads": (4, 32, 3e-4, None),
    "squad_v2": (6, 32, 3e-4, "squads"),
    "squadshifts_amazon": (8, 32, 3e-4, None),
    "squadshifts_newwiki": (8, 32, 3e-4, None),
    "wikiqa_choice": (10, 16, 3e-4, None),
    "wikiqa_rerank": (8, 32, 3e-4, "squads"),
    "trecqa_rerank": (10, 2, 1e-4, "wikiqa_rerank"),
    "lookups": (6, 32, 3e-4, None),
    "kv_retrieval": (4, 16, 3e-4, "lookups"),
}
"""Epochs, rows of a step, rate and where a set begins from, for `tiny`: a thousand steps and more also of small sets, as so small a model
learns little in the hundreds that are enough for base (bench/results/finetune_2026-11-26.md: QNLI 72.4 after two epochs, below TF-IDF).
A third of the rate is better for MRPC and RTE (bench/results/finetune_2026-11-27.md).
TREC QA's 94 questions are too few to begin with: 59.8 MAP alone, 77 after the SQuADs and WikiQA (bench/results/finetune_2026-11-27.md)."""


def development(size: Literal["base", "tiny"] = "base") -> tuple[Member, ...]:
    """Everything supervised that models here are tuned on: classes, labels, numbers, tags, answers, choices; three seeds.

    For `tiny` with two sets more to begin from: `squads`, all three SQuADs as one, for `squad_v2` and reranking; and `lookups`, contexts of
    few keys, for `kv_retrieval`. AdamW, whose step is one launch on a GPU, at up to six times base's rates.
    """
    if size == "base":
        return _development()
    members = {member.name: member for member in _development()}
    squads = Member(
        name="squads",
        config=members["squad_v2"].config,
        sources=(Source(train="squad*/train.jsonl.gz", dev="squad_v2/dev.jsonl.gz"),),
    )
    lookups = Member(
        name="lookups",
        config=dataclasses.replace(members["kv_retrieval"].config, max_length=1024),
        sources=(Source(train="", dev="", lookups=16_000, longest_lookup=10),),
    )
    ordered: dict[str, Member] = {}
    for name, member in members.items():
        before = {"squad_v2": squads, "kv_retrieval": lookups}.get(name)
        ordered |= {one.name: one for one in (before, member) if one}
    return tuple(_for_tiny(member) for member in ordered.values())


def _for_tiny(member: Member) -> Member:
    if member.name not in _TINY:
        return member
    epochs, rows, rate, begins_from = _TINY[member.name]
    config = dataclasses.replace(
        member.config,
        epochs=epochs,
        batch_rows=rows,
        learning_rates=(rate,),
        optimizer="adamw",
        weight_decay=0.01,
        warmup=0.1,
    )
    if member.name in ("lookups", "kv_retrieval"):  # made anew, and nothing in them repeats: there is nothing to regularise
        config = dataclasses.replace(config, dropout=0.0)
    return dataclasses.replace(member, config=config, begins_from=begins_from)


def pairs() -> Member:
    """Pairs of every kind as one classification: inference, paraphrase, likeness, and sentences that answer a question or do not.

    For a small model that shall teach what two texts have to do with each other, before MRPC, RTE, QNLI or STS-B.
    """
    degrees = tuple(f"alike {degree}" for degree in range(6))
    squads = ("squad_v2", "squadshifts_amazon", "squadshifts_newwiki", "qed_nq")
    parts = (
        _set("sick", classes=_INFERENCE),
        _set("sick", form=partial(with_degree, least=1, most=5), classes=degrees),
        _set("glue_stsb", form=partial(with_degree, least=0, most=5), classes=degrees),
        _set("glue_rte", classes=("follows", "does not follow")),
        *(_set(name, classes=(f"{name}, other", f"{name}, same")) for name in ("glue_mrpc", "quora", "pan_paraphrase")),
        _set("glue_qnli", classes=("answers", "does not answer")),
        *(
            _set(
                name,
                form=partial(with_sentence, right=right),
                classes=("answers", "does not answer"),
            )
            for name in squads
            for right in (True, False)
        ),
    )
    measured = tuple(f"glue_{name}/dev.jsonl.gz" for name in ("mnli", "mrpc", "stsb", "qnli", "rte"))
    source = _set("glue_mnli", classes=_INFERENCE, parts=parts, unseen=measured)
    config = dataclasses.replace(recipes.mnli(), task=SequenceTask(text="text_a", text_pair="text_b"), seeds=(0, 1, 2))
    return _for_tiny(Member(name="pairs", config=config, sources=(source,)))


def _development() -> tuple[Member, ...]:
    text, tags, answers = recipes.classification(), recipes.tagging(), recipes.question_answering()
    macro = _task(text, metric="f1_macro")
    lookup = dataclasses.replace(answers, task=SpanTask(longest_answer=LONGEST_VALUE), max_length=8192, batch_rows=16)
    members = (
        *(dataclasses.replace(member, published=None) for member in glue() if member.name != "qqp"),
        Member(
            name="ag_news",
            config=text,
            sources=(_set("ag_news", columns={"label": "number", "label_name": "label"}),),
            begins_from="mnli",
            zero_shot=("World", "Sports", "Business", "Sci/Tech"),
        ),
        Member(name="imdb", config=dataclasses.replace(text, max_length=1024), sources=(_set("imdb"),)),
        Member(name="banking77", config=dataclasses.replace(text, epochs=10), sources=(_set("banking77"),)),
        Member(name="trec_fine", config=dataclasses.replace(_task(text, label="fine"), epochs=10), sources=(_set("trec6"),)),
        *(
            Member(name=f"tweet_{kind}", config=dataclasses.replace(macro, epochs=5), sources=(_set("tweeteval", f"{kind}."),))
            for kind in ("emotion", "hate", "irony", "offensive")
        ),
        Member(
            name="quora",
            config=_task(text, text="text_a", text_pair="text_b", metric="f1"),
            sources=(_set("quora"),),
        ),
        Member(
            name="pii_kinds",
            config=dataclasses.replace(recipes.multi_label(), epochs=10),
            sources=(_set("pii_presidio", form=spans_to_labels),),
        ),
        Member(
            name="clear",
            config=dataclasses.replace(recipes.regression(), max_length=512),
            sources=(_set("clear_readability"),),
        ),
        Member(  # the settings of `quality` on numbers that are not its scores from 0 to 5
            name="clear_frozen",
            config=dataclasses.replace(recipes.quality(), task=recipes.regression().task),
            sources=(_set("clear_readability"),),
        ),
        *(Member(name=name, config=tags, sources=(_set(name),)) for name in ("wnut17", "bc5cdr", "ncbi_disease", "wikiann_en")),
        Member(name="pii", config=dataclasses.replace(tags, epochs=10), sources=(_set("pii_presidio", form=spans_to_tags),)),
        *(
            Member(name=name, config=answers, sources=(_set(name),))
            for name in ("squad_v2", "squadshifts_amazon", "squadshifts_newwiki")
        ),
        Member(
            name="wikiqa_choice",
            config=dataclasses.replace(recipes.multiple_choice(), epochs=5),
            sources=(_set("wikiqa", form=candidates_to_choices),),
        ),
        *(
            Member(
                name=f"{name}_rerank",
                config=dataclasses.replace(reranking(), batch_rows=batch, epochs=epochs),
                sources=(_set(name, form=with_candidates),),
            )
            for name, batch, epochs in (("wikiqa", 32, 6), ("trecqa", 8, 8))
        ),
        Member(
            name="kv_retrieval",
            config=lookup,
            sources=(Source(train="", dev="kv_retrieval/test75.jsonl.gz", form=records_to_question),),
        ),
    )
    return tuple(dataclasses.replace(m, config=dataclasses.replace(m.config, seeds=(0, 1, 2))) for m in members)


def _glue(
    name: str,
    config: FinetuneConfig,
    columns: dict[str, str],
    published: float,
    begins_from: str | None = None,
    classes: tuple[str, ...] = (),
) -> Member:
    dev = "validation_matched" if name == "mnli" else "validation"
    hub = Source(train=f"{name}/train-*.parquet", dev=f"{name}/{dev}-*.parquet", classes=classes)
    ours = _set(f"glue_{name}", columns=columns, classes=classes)
    return Member(name=name, config=config, sources=(ours, hub), begins_from=begins_from, published=published)


def _set(folder: str, part: str = "", **settings: Any) -> Source:
    return Source(train=f"{folder}/{part}train.jsonl.gz", dev=f"{folder}/{part}dev.jsonl.gz", **settings)


def _task(config: FinetuneConfig, **changes: Any) -> FinetuneConfig:
    assert isinstance(config.task, SequenceTask)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, **changes))
