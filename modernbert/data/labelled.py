"""Published labelled sets, and how their rows become the rows that our tasks read.

A set is a record (`Source`): its files, which column is which, and a form, for those whose rows are of another kind. `write_rows` writes
`train.jsonl` and `dev.jsonl`; data that must not be passed on stays in the folder that it is written to.
"""

import bisect
import dataclasses
import itertools
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modernbert.data.lookups import lookup_row, lookups_of_all_lengths
from modernbert.data.tables import read_table
from modernbert.errors import DataError

Cells = dict[str, Any]

Form = Callable[[Cells], Cells | None]
"""Changes a row, or leaves it out (None)."""

CHOICES = 4

TEXTS = ("text", "text_a", "text_b", "question", "context")
"""Columns that must say something: a published row where one is blank is left out."""

_WORD = re.compile(r"\w+|[^\w\s]")

DISTINCT = 4
"""Words from which on two texts that have them in common are taken for one."""

_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+")


def as_it_is(row: Cells) -> Cells:
    return row


def spans_to_tags(row: Cells) -> Cells | None:
    """Words and BIO tags of a text with spans of characters [start, end, kind]; a word that a span touches is of its kind.

    >>> spans_to_tags({"text": "I am Ann Lee.", "spans": [[5, 12, "NAME"]]})["tags"]
    ['O', 'O', 'B-NAME', 'I-NAME', 'O']
    """
    words = list(_WORD.finditer(row["text"]))
    tags = ["O"] * len(words)
    for start, end, kind in row["spans"]:
        touched = [i for i, word in enumerate(words) if word.start() < end and word.end() > start]
        for i in touched:
            tags[i] = f"{'B' if i == touched[0] else 'I'}-{kind}"
    return {"tokens": [word.group() for word in words], "tags": tags} if words else None


def spans_to_labels(row: Cells) -> Cells:
    """Which kinds of spans a text has.

    >>> spans_to_labels({"text": "x", "spans": [[0, 1, "NAME"], [0, 1, "CITY"], [0, 1, "NAME"]]})["labels"]
    ['CITY', 'NAME']
    """
    return {"text": row["text"], "labels": sorted({kind for _, _, kind in row["spans"]})}


def candidates_to_choices(row: Cells) -> Cells | None:
    """The first right candidate among wrong ones, at a place that the question decides; None where wrong ones are too few."""
    texts = {side: [one["text"] for one in row["candidates"] if one["label"] == side] for side in (0, 1)}
    if not texts[1] or len(texts[0]) < CHOICES - 1:
        return None
    generator = random.Random(row["query"])
    choices = generator.sample(texts[0], CHOICES - 1)
    label = generator.randrange(CHOICES)
    choices.insert(label, texts[1][0])
    return {"text": row["query"], "choices": choices, "label": label}


def with_sentence(row: Cells, *, right: bool) -> Cells | None:
    """A question about a context, and the sentence that holds its answer, or another without it, which the question decides: as QNLI was
    made of SQuAD (Wang et al. 2018, arXiv 1804.07461). None where there is no such sentence.

    >>> row = {"question": "Who came?", "context": "Ann came. It rained.", "answers": [{"text": "Ann", "start": 0}]}
    >>> with_sentence(row, right=True)
    {'text_a': 'Who came?', 'text_b': 'Ann came.', 'label': 0}
    >>> with_sentence(row, right=False)
    {'text_a': 'Who came?', 'text_b': 'It rained.', 'label': 1}
    """
    context, answers = row["context"].rstrip(), row["answers"]
    ends = [match.end() for match in _BETWEEN_SENTENCES.finditer(context)]
    sentences = [context[start:end].strip() for start, end in itertools.pairwise([0, *ends, len(context)])]
    if not answers:
        return None
    place = bisect.bisect_right(ends, answers[0]["start"])
    others = [one for number, one in enumerate(sentences) if number != place and answers[0]["text"] not in one]
    if not right and not others:
        return None
    sentence = sentences[place] if right else random.Random(row["question"]).choice(others)
    return {"text_a": row["question"], "text_b": sentence, "label": 0 if right else 1}


def with_degree(row: Cells, *, least: float, most: float) -> Cells:
    """A row's score in six degrees, 0 to 5, as a class.

    >>> with_degree({"score": 3.9}, least=1, most=5)["label"]
    4
    """
    return {**row, "label": round(5 * (row["score"] - least) / (most - least))}


def with_candidates(row: Cells) -> Cells | None:
    """Leaves out a question for which nothing was found."""
    return row if row["candidates"] else None


def records_to_question(row: Cells) -> Cells:
    """A published key-value context, as a question for the key's value."""
    return lookup_row(row["ordered_kv_records"], row["key"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a set lies in a folder of sets, and what its columns are."""

    train: str
    """Pattern of its training files; "" makes lookups."""
    dev: str
    """Pattern of its dev files; "" makes lookups of the training ones' kind, a twentieth as many."""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the task calls a column, by what the file calls it; the other columns stay."""
    classes: tuple[str, ...] = ()
    """Names of the classes that the file numbers."""
    form: Form = as_it_is
    parts: tuple["Source", ...] = ()
    """Further sets, whose training rows come after its own."""
    unseen: tuple[str, ...] = ()
    """Patterns of files that are measured afterwards: a training row with a text of theirs, of `DISTINCT` words and more, is left out."""
    lookups: int = 6_000
    """Training rows that are made, where there is no file."""
    longest_lookup: int = 138
    """The most pairs of one: 138 are some 8,190 tokens of a vocabulary of 16,384, almost twice what Liu et al. measured with."""

    def is_in(self, folder: Path) -> bool:
        files = (self.train, self.dev, *(part.train for part in self.parts))
        return all(list(folder.glob(pattern)) for pattern in files if pattern)


def write_rows(source: Source, folder: Path, out: Path) -> tuple[Path, Path]:
    """Writes a set's rows as our tasks read them.

    Args:
        source: of a table of sets.
        folder: holds the files that it names.
        out: gets `train.jsonl` and `dev.jsonl`.

    Returns:
        The two files.

    Raises:
        DataError: a file is missing or damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, pattern, share) in enumerate((("train", source.train, 1), ("dev", source.dev, 20))):
        some: Iterable[Cells] = (
            _rows(source, pattern, folder)
            if pattern
            else lookups_of_all_lengths(source.lookups // share, longest=source.longest_lookup, seed=seed)
        )
        if name == "train":
            some = itertools.chain(some, *(_rows(part, part.train, folder) for part in source.parts))
            some = _unseen(some, source, folder)
        with (out / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
    return out / "train.jsonl", out / "dev.jsonl"


def _rows(source: Source, pattern: str, folder: Path) -> Iterator[Cells]:
    blank = 0
    for row in _read(folder, pattern):
        formed = source.form(row)
        if formed is None:
            continue
        if any(isinstance(formed.get(column), str) and not formed[column].strip() for column in TEXTS):
            blank += 1
            continue
        if source.classes:
            formed["label"] = source.classes[formed["label"]]
        yield {source.columns.get(name, name): value for name, value in formed.items()}
    if blank:
        tqdm.write(f"{folder / pattern}: {blank:,} rows with an empty text are left out", file=sys.stderr)


def _unseen(rows: Iterable[Cells], source: Source, folder: Path) -> Iterator[Cells]:
    """The rows of which no text is measured afterwards."""
    measured = {said for pattern in source.unseen for row in _read(folder, pattern) for said in _said(row)}
    return (row for row in rows if measured.isdisjoint(_said(row)))


def _said(row: Cells) -> Iterator[tuple[str, ...]]:
    """The words of each of a row's texts that has enough of them to be told from others."""
    found = (words_of(str(row.get(column, ""))) for column in TEXTS)
    return (words for words in found if len(words) >= DISTINCT)


def words_of(text: str) -> tuple[str, ...]:
    """A text's words, punctuation and case aside: texts with the same ones are taken for one.

    >>> words_of("It's late, Ann!")
    ('it', 's', 'late', 'ann')
    """
    return tuple(re.findall(r"\w+", text.lower()))


def _read(folder: Path, pattern: str) -> Iterator[Cells]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataError(f"no file {folder / pattern}; wanted a folder of data sets, see docs/finetune.md")
    for path in files:
        yield from (row for _, row in read_table(path))
