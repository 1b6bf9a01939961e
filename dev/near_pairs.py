"""Pairs of texts that nobody labelled, near each other and less near.

    python dev/near_pairs.py SETS CORPUS WORK

For each sentence of labelled sets' training rows and for as many of a corpus, sentences near it by `tiny-embed`'s vectors, some very near,
some less, for each question sentences that might answer it, and texts with words changed. No text of a GLUE dev row is among them. WORK
gets what `dev/pair_distillation.py` reads.

Source: Thakur et al. 2021 (arXiv 2010.08240).
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.checkpoint.weights import write_json
from modernbert.data.documents import read_documents, read_rows
from modernbert.data.labelled import DISTINCT, words_of, write_rows
from modernbert.data.tables import read_table
from modernbert.engine.engine import load
from modernbert.engine.hardware import choose_device
from modernbert.recipes.suites import pairs

RANKS = ((0, 1), (1, 2), (2, 5), (5, 16), (16, 64))
"""One neighbour of each sentence is drawn from each of these."""
ASKED = ((0, 1), (1, 2), (2, 3), (3, 6), (6, 10), (10, 16), (16, 24), (24, 40), (40, 64))
"""And of each question from these, among sentences that ask nothing."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def make(sets: Path, corpus: Path, work: Path, sentences: int) -> None:
    """Writes texts.jsonl, pairs.npy (int32 [pairs, 2], numbers of texts; the labelled ones come first) and made.json."""
    train, _ = write_rows(pairs().sources[0], sets, work / "data" / "pairs")
    measured = {words for path in sets.glob("glue_*/dev.jsonl.gz") for _, row in read_rows(path) for words in _words(row)}
    texts: dict[str, int] = {}
    labelled = [
        tuple(texts.setdefault(row[side].strip(), len(texts)) for side in ("text_a", "text_b")) for _, row in read_table(train)
    ]
    of_sets = len(texts)
    for text in corpus_texts(corpus, sentences):
        if words_of(text) not in measured:
            texts.setdefault(text, len(texts))
    names = list(texts)
    unit_ND = torch.from_numpy(load("tiny-embed").embed(names, prompt_name="document", normalize=True, truncate=True))
    asks = torch.tensor([name.endswith("?") for name in names])
    answers, questions = (~asks).nonzero()[:, 0], asks.nonzero()[:, 0]
    rng, found = random.Random(0), list(labelled)
    for number, near in enumerate(neighbours(unit_ND, unit_ND, RANKS[-1][1] + 1).tolist()):
        others = [other for other in near if other != number]
        found += [_ordered(number, other, names, rng) for other in drawn(others, RANKS, rng)]
        if rng.random() < 0.3:
            found.append(_ordered(number, rng.randrange(len(names)), names, rng))
        if number % 3 == 0:
            found.append((number, texts.setdefault(with_changes(names[number], names[others[0]], rng), len(texts))))
    if len(questions):
        near_QK = answers[neighbours(unit_ND[questions], unit_ND[answers], ASKED[-1][1])]
        for number, near in zip(questions.tolist(), near_QK.tolist(), strict=True):
            found += [(number, other) for other in drawn(near, ASKED, rng)]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    np.save(work / "pairs.npy", np.array(found, dtype=np.int32))
    counts = {"labelled": len(labelled), "texts_of_sets": of_sets, "texts": len(texts), "pairs": len(found)}
    write_json(work / "made.json", counts)
    print(counts, flush=True)


def corpus_texts(corpus: Path, count: int) -> Iterator[str]:
    """Sentences of 6 to 40 words and, one in four, two or three that follow each other: `count` in all, drawn from all files alike."""
    rng = random.Random(0)
    files = sorted(corpus.glob("*-[0-9]*.jsonl*"))
    share = -(-count // max(1, len(files)))
    for path in files:
        some: list[str] = []
        for document in read_documents([path]):
            lines = [line for line in document.text.split("\n") if len(line) > 60]
            for line in rng.sample(lines, min(len(lines), 8)):
                parts = [part.strip() for part in _SENTENCE_END.split(line)]
                begin, size = rng.randrange(len(parts)), rng.choice((1, 1, 1, rng.choice((2, 3))))
                text = " ".join(parts[begin : begin + size])
                if 6 <= len(text.split()) <= 40 * size and len(text) < 600:
                    some.append(text)
            if len(some) > 4 * share:
                break
        yield from rng.sample(some, min(share, len(some)))


def neighbours(unit_ND: Tensor, among_MD: Tensor, count: int) -> Tensor:
    """The numbers of the `count` nearest unit vectors among M of each of N, nearest first."""
    device = choose_device(None)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    among_DM = among_MD.to(device, dtype).T
    parts = [
        (part.to(device, dtype) @ among_DM).topk(min(count, among_DM.shape[1])).indices.cpu() for part in unit_ND.split(2048)
    ]
    return torch.cat(parts)


def drawn(near: Sequence[int], ranks: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    """One of each stretch of a list."""
    return [near[rng.randrange(begin, end)] for begin, end in ranks if end <= len(near)]


def with_changes(text: str, other: str, rng: random.Random) -> str:
    """The text with one to three changes: a word left out, two exchanged, one of another text, a number changed, or a "not" put in."""
    words = text.split()
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, kind = rng.randrange(len(words)), rng.randrange(5)
        if kind == 0 and len(words) > 3:
            del words[place]
        elif kind == 1:
            swapped = rng.randrange(len(words))
            words[place], words[swapped] = words[swapped], words[place]
        elif kind == 2:
            words[place] = rng.choice(other.split())
        elif kind == 3:
            numbers = [at for at, word in enumerate(words) if word.isdecimal()]
            if numbers:
                words[rng.choice(numbers)] = str(rng.randrange(10 ** rng.randrange(1, 5)))
        else:
            words.insert(place, "not")
    return " ".join(words)


def _ordered(one: int, other: int, texts: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """A question before what is none, else either way around."""
    asks = texts[one].endswith("?"), texts[other].endswith("?")
    if asks[0] != asks[1]:
        return (one, other) if asks[0] else (other, one)
    return (one, other) if rng.random() < 0.5 else (other, one)


def _words(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    found = (words_of(str(row.get(column, ""))) for column in ("text", "text_a", "text_b"))
    return (words for words in found if len(words) >= DISTINCT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sentences", type=int, default=100_000, help="of the corpus")
    asked = parser.parse_args()
    make(asked.sets, asked.corpus, asked.work, asked.sentences)


if __name__ == "__main__":
    main()
