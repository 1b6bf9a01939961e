"""Pairs of long documents' questions, and of their answers' sentences, with the passages that hold what is asked.

    python dev/answer_pairs.py SETS TEACHER PAIRS

SETS has the folders qmsum and squality, whose training questions have written answers; TEACHER is a model of one vector a text. The
passages are chosen by question and answer together, for an answer says what to look for; questions that fit any document ("What is the
plot?") are left out, their answers are not. Dev splits are not read. PAIRS gets passages.jsonl and answers.jsonl.
"""

import json
import re
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from modernbert.data.retrieval import RetrievalSource, read_retrieval
from modernbert.data.tables import read_table
from modernbert.eval.named import systems_named
from modernbert.eval.systems import Vectors
from modernbert.text.passages import passages_of
from modernbert.vectors import unit

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def main() -> None:
    sets, out = Path(sys.argv[1]), Path(sys.argv[3])
    (system,) = systems_named(sys.argv[2])
    assert isinstance(system, Vectors), f"{sys.argv[2]} gives no vector for a text"
    found: dict[str, dict[tuple[str, str], str]] = {"passages": {}, "answers": {}}
    for name in ("qmsum", "squality"):
        data = read_retrieval(RetrievalSource(path=str(sets / name), split="train"))
        rows = {row["_id"]: row for _, row in read_table(sets / name / "queries.train.jsonl.gz")}
        parts = [passages_of(document) for document in data.documents]
        ends = np.cumsum([len(some) for some in parts])
        passage_PD = unit(system.embed(list(chain.from_iterable(parts)), False))
        asked = []  # source, query, what the teacher looks for, the document's place, how many passages
        for query, id, grades in zip(data.queries, data.query_ids, data.grades, strict=True):
            row = rows[id]
            for answer in map(str.strip, row.get("summaries") or [row["answer"]]):
                if row["kind"] == "specific":
                    asked.append(("passages", query, f"{query} {answer}", next(iter(grades)), 2))
                sentences = [part for part in _SENTENCE_END.split(answer) if len(part) > 20]
                two = (" ".join(sentences[first : first + 2]) for first in range(0, len(sentences), 2))
                asked += [("answers", text, text, next(iter(grades)), 1) for text in two]
        wanted_QD = unit(system.embed([wanted for _, _, wanted, _, _ in asked], True))
        for (source, query, _, place, most), wanted_D in zip(asked, wanted_QD, strict=True):
            similar = passage_PD[ends[place] - len(parts[place]) : ends[place]] @ wanted_D
            for best in similar.argsort()[::-1][:most]:
                found[source][query, parts[place][best]] = f"{name} {place}"
    for source, pairs in found.items():
        with (out / f"{source}.jsonl").open("w", encoding="utf-8") as file:
            for (query, document), group in pairs.items():
                row = {"query": query, "document": document, "source": source, "group": group}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{len(pairs):>10,}  {source}")


if __name__ == "__main__":
    main()
