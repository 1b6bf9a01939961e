"""Collections of sets: the development data of this project, by the folders that hold it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from modernbert.data.near import NearDuplicates
from modernbert.data.pair_sources import HeldOut, plain
from modernbert.data.retrieval import RetrievalSource, read_retrieval
from modernbert.errors import DataError

_DEVELOPMENT = (
    RetrievalSource(path="scifact"),
    RetrievalSource(path="cranfield"),
    RetrievalSource(path="cacm"),
    RetrievalSource(path="nq_oracle"),
    RetrievalSource(path="quora/retrieval", name="quora"),
    RetrievalSource(path="medquad/dev.jsonl.gz", name="medquad", query="question", document="answer"),
    RetrievalSource(path="dbpedia_entity_mini"),
    RetrievalSource(path="cosqa", metric="mrr@10"),
    RetrievalSource(
        path="conala/dev.jsonl.gz", name="conala", query="intent", document="code", same="question_id", metric="mrr@10"
    ),
    RetrievalSource(
        path="code_docstring/dev.jsonl.gz", name="code_docstring", query="docstring", document="code", metric="mrr@10"
    ),
    *(
        RetrievalSource(
            path=f"codenn/{language}.dev.jsonl.gz", name=f"codenn_{language}", query="title", document="code", metric="mrr@10"
        )
        for language in ("csharp", "python", "sql")
    ),
    RetrievalSource(path="java_codesum/dev.jsonl.gz", name="java_codesum", query="docstring", document="code", metric="mrr@10"),
    RetrievalSource(path="mbpp/dev.jsonl.gz", name="mbpp", query="text", document="code", metric="mrr@10"),
    RetrievalSource(path="qmsum", only="kind=specific"),
    RetrievalSource(path="squality", only="kind=specific"),
    RetrievalSource(path="wikiqa/dev.jsonl.gz", name="wikiqa", metric="map"),
    RetrievalSource(path="trecqa/dev.jsonl.gz", name="trecqa", metric="map"),
    RetrievalSource(path="kv_retrieval/test75.jsonl.gz", name="kv_retrieval", metric="recall@1"),
)


_READING = ("squad_v2", "qed_nq", "squadshifts_newwiki", "squadshifts_amazon", "subjqa", "policyqa")
"""Questions and the passages that answer them: no dev sets of search, but pairs."""

_TRAINING = (
    *(RetrievalSource(path=name, split="train") for name in ("scifact", "nq_oracle")),
    RetrievalSource(path="quora/train.jsonl.gz", name="quora", query="text_a", document="text_b", only="label=1"),
    RetrievalSource(path="medquad/train.jsonl.gz", name="medquad", query="question", document="answer"),
    RetrievalSource(path="conala/train.jsonl.gz", name="conala", query="intent", document="code"),
    RetrievalSource(path="code_docstring/train.jsonl.gz", name="code_docstring", query="docstring", document="code"),
    *(
        RetrievalSource(path=f"codenn/{language}.train.jsonl.gz", name=f"codenn_{language}", query="title", document="code")
        for language in ("csharp", "python", "sql")
    ),
    RetrievalSource(path="java_codesum/train.jsonl.gz", name="java_codesum", query="docstring", document="code"),
    RetrievalSource(path="mbpp/train.jsonl.gz", name="mbpp", query="text", document="code"),
    *(RetrievalSource(path=name, split="train", only="kind=specific") for name in ("qmsum", "squality")),
    *(RetrievalSource(path=f"{name}/train.jsonl.gz", name=name) for name in ("wikiqa", "trecqa", *_READING)),
)


def training_sets(root: str | Path) -> list[RetrievalSource]:
    """The training splits beside `development_sets`, of the sets that have one; `root` and what is raised as there."""
    return _placed(_TRAINING, root)


def held_out(root: str | Path) -> HeldOut:
    """What the sets measure, to keep it out of pairs: every query, the code of code_docstring and cosqa, the right passages of nq_oracle.

    The splits of other sets share their corpus by design. `root` as in `development_sets`.
    """
    sets = [read_retrieval(source) for source in development_sets(root)]
    texts = [text for data in sets if data.name in ("code_docstring", "cosqa") for text in data.documents]
    for data in sets:
        if data.name == "nq_oracle":
            right = {place for grades in data.grades for place, grade in grades.items() if grade > 0}
            texts += [data.documents[place] for place in sorted(right)]
    return HeldOut(queries=frozenset(plain(query) for data in sets for query in data.queries), near=NearDuplicates(texts))


def _placed(sources: Sequence[RetrievalSource], root: str | Path) -> list[RetrievalSource]:
    """The sources below a folder of this machine; their paths are whole, since `folder/set` could be a name on the hub."""
    if not Path(root).is_dir():
        raise DataError(f"no folder {root}; wanted the one that holds a folder for each set, such as {root}/{sources[0].path}")
    whole = Path(root).absolute()
    return [dataclasses.replace(one, path=str(whole / one.path), name=one.name or one.path) for one in sources]


def development_sets(root: str | Path, names: tuple[str, ...] = ()) -> list[RetrievalSource]:
    """The dev splits of the sets that models here are tuned on: prose, code, long documents, answer sentences.

    Args:
        root: the folder that holds a folder for each.
        names: which; none is all.

    Raises:
        DataError: there is no such folder, or no set has a name (names the sets).
    """
    sources = _placed(_DEVELOPMENT, root)
    unknown = set(names) - {source.name for source in sources}
    if unknown:
        raise DataError(f"no set named {', '.join(sorted(unknown))}; there are {', '.join(source.name for source in sources)}")
    return [source for source in sources if not names or source.name in names]
