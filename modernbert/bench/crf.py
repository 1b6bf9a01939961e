"""A linear-chain CRF for tags, with the usual features of words and their neighbours, by python-crfsuite."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modernbert.errors import MissingExtraError
from modernbert.tasks.tagging import TaggingTask
from modernbert.tasks.task import Example, Row

_SETTINGS = {"c1": 0.1, "c2": 0.1, "max_iterations": 100, "feature.possible_transitions": True}


def tag_by_crf(task: TaggingTask, train: Sequence[Row], dev: Sequence[Row]) -> dict[str, float]:
    """The task's figures for a CRF's tags.

    Raises:
        MissingExtraError: python-crfsuite is not installed.
    """
    try:
        import pycrfsuite
    except ImportError as error:
        raise MissingExtraError("the CRF needs python-crfsuite: pip install 'modernbert[bench]'") from error
    trainer = pycrfsuite.Trainer(verbose=False)
    trainer.set_params(_SETTINGS)
    for row in train:
        trainer.append(features_of(task.words_of(row)), task.tags_of(row))
    tagger = pycrfsuite.Tagger()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "crf")
        trainer.train(path)
        tagger.open(path)
        found = [tagger.tag(features_of(task.words_of(row))) for row in dev]
    examples = [Example(rows=(), label=None, weight=0, row=i, places=range(len(tags))) for i, tags in enumerate(found)]
    return task.score(dev, examples, [np.array([task.labels.index(tag) for tag in tags]) for tags in found])


def features_of(words: Sequence[str]) -> list[list[str]]:
    """What each word shows: itself, its ends, its shape, and two neighbours to each side.

    >>> features_of(["Paris", "1st"])[1][:5]
    ['bias', 'w=1st', 'p1=1', 's1=t', 'p2=1s']
    """
    found = []
    for i, word in enumerate(words):
        lower = word.lower()
        ends = [f"{side}{n}={part}" for n in (1, 2, 3, 4) for side, part in (("p", lower[:n]), ("s", lower[-n:]))]
        own = ["bias", f"w={lower}", *ends, f"shape={shape_of(word)}", f"title={word.istitle()}", f"upper={word.isupper()}"]
        near = [
            f"{offset:+d}:{name}={value}"
            for offset in (-2, -1, 1, 2)
            for name, value in (("w", _at(words, i + offset).lower()), ("shape", shape_of(_at(words, i + offset))))
        ]
        found.append([*own, *near])
    return found


def shape_of(word: str) -> str:
    """Letters and digits by kind, each run as one.

    >>> shape_of("McDonald-42")
    'AaAa-0'
    """
    kinds = ["A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word]
    return "".join(kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before)


def _at(words: Sequence[str], place: int) -> str:
    return words[place] if 0 <= place < len(words) else "<edge>"
