"""Pairs for contrastive training out of documents: what people would search by, and what they should find.

title ↔ text · heading ↔ section · title or heading ↔ long document · sentence ↔ its passage · question ↔ answer · word ↔ definition ·
docstring or name ↔ function · and the training splits of search sets.
"""

import ast
import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modernbert.data.documents import JSON_LINES, document_files, read_rows, source_of
from modernbert.data.near import NearDuplicates
from modernbert.data.python_sources import python_documents
from modernbert.data.retrieval import RetrievalSet
from modernbert.errors import DataError

Pair = dict[str, Any]
"""query, document, and perhaps negatives and group; see `tasks/pairs.py`."""

LONGEST = 2_000
"""Characters of a document: more than a row of 256 tokens reads."""

LONG = range(15_000, 400_001)
"""Characters of a document that is found as a whole too."""

READ = 33_000
"""Characters that are kept of it: what 8,192 tokens hold."""

LONG_DOCUMENTS = 250
"""Of a source; each is written for three queries."""

SHORTEST = 150
"""Characters of a text or section worth finding."""

PASSAGES = (40, 80, 160)
"""Words of the passages that sentences are taken from, in turn."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_QUESTION = re.compile(r"^Question: (.+?)\nAnswer: (.+?)$", re.MULTILINE)
_DEFINITION = re.compile(r"^([^\n():;]{2,60}) \((?:noun|verb|adjective|adverb)\): (.{15,})$", re.MULTILINE)
_HEADING = re.compile(r"^[^\n]{3,80}[^\s.,:;?!]$")


def document_pairs(text: str, title: str | None) -> Iterator[tuple[str, Pair]]:
    """The pairs that one document of prose holds, each with its kind: question, definition, title, heading, sentence.

    Args:
        text: paragraphs with empty lines between; a short one without a full stop is a heading.
        title: of the document, or None.

    >>> body = "Ants dig. " * 20
    >>> pairs = list(document_pairs(f"Ants\\n\\n{body}\\n\\nTheir nests\\n\\n{body}", "Ants"))
    >>> [(kind, pair["query"]) for kind, pair in pairs]
    [('title', 'Ants'), ('heading', 'Ants: Their nests')]
    """
    questions = [{"query": question, "document": answer} for question, answer in _QUESTION.findall(text)]
    yield from (("question", pair) for pair in questions)
    definitions = [{"query": word, "document": meaning, "group": word} for word, meaning in _DEFINITION.findall(text)]
    yield from (("definition", pair) for pair in definitions)
    if questions or definitions:
        return
    paragraphs = text.split("\n\n")
    if title and paragraphs and paragraphs[0].strip() == title.rpartition(": ")[2]:
        paragraphs = paragraphs[1:]
    headings = [place for place, paragraph in enumerate(paragraphs) if _HEADING.match(paragraph)]
    first = _section(paragraphs[: headings[0] if headings else None])
    if title and len(first) >= SHORTEST:
        yield "title", {"query": title, "document": first, "group": title}
    for begin, end in itertools.pairwise([*headings, len(paragraphs)]):
        section = _section(paragraphs[begin + 1 : end])
        if len(section) >= SHORTEST:
            heading = f"{title}: {paragraphs[begin]}" if title else paragraphs[begin]
            yield "heading", {"query": heading, "document": section, "group": title or paragraphs[begin]}
    yield from (("sentence", pair) for pair in sentence_pairs(text))


def long_pairs(text: str, title: str) -> Iterator[Pair]:
    """A long document's beginning, for its title and for two of its headings, spread evenly; shorter or longer documents have none.

    >>> book = "Ants\\n\\n" + "Their nests\\n\\n" + "Ants dig. " * 2000
    >>> [pair["query"] for pair in long_pairs(book, "Ants")]
    ['Ants', 'Ants: Their nests']
    """
    if len(text) in LONG:
        whole = text[:READ]
        headings = [part for part in whole.split("\n\n")[1:] if _HEADING.match(part)]
        chosen = headings[:: max(1, len(headings) // 2)][:2]
        yield from (
            {"query": query, "document": whole, "group": title} for query in (title, *(f"{title}: {part}" for part in chosen))
        )


def sentence_pairs(text: str) -> Iterator[Pair]:
    """A sentence and the passage that it was taken out of, for every second passage of prose: an inverse cloze.

    Source: Lee et al. 2019 (arXiv 1906.00300) §4.

    >>> next(sentence_pairs("Ants dig. They live in nests of many thousands under the ground. " + "Others do not. " * 20))["query"]
    'They live in nests of many thousands under the ground.'
    """
    passage: list[str] = []
    number = words = 0
    for sentence in itertools.chain.from_iterable(map(_SENTENCE_END.split, text.split("\n\n"))):
        passage.append(sentence.strip())
        words += len(sentence.split())
        if words < PASSAGES[number // 2 % len(PASSAGES)]:
            continue
        askable = [place for place, part in enumerate(passage) if 6 <= len(part.split()) <= 40]
        if number % 2 == 0 and askable and len(passage) > 1:
            query = passage.pop(askable[len(askable) // 2])
            yield {"query": query, "document": " ".join(passage)[:LONGEST]}
        number, words, passage = number + 1, 0, []


def function_pairs(code: str) -> Iterator[tuple[str, Pair]]:
    """The functions of a Python file, each with its kind: docstring, by what they say they do; name, by what they are called.

    A docstring is its first paragraph, and the function loses it whole. A name counts where nothing is said, and has two words or more.

    >>> list(function_pairs('def add(a, b):\\n    "Adds two numbers, or joins texts."\\n    return a + b\\n'))
    [('docstring', {'query': 'Adds two numbers, or joins texts.', 'document': 'def add(a, b):\\n    return a + b'})]
    >>> [(kind, pair["query"]) for kind, pair in function_pairs("def add_two(a, b):\\n    c = a + b\\n    return c\\n")]
    [('name', 'add two')]
    """
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        lines = code.splitlines()
        with warnings.catch_warnings(action="ignore"):  # of others' escapes
            tree = ast.parse(code)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
                continue
            said = ast.get_docstring(node)
            kept = lines[node.lineno - 1 : node.end_lineno]
            if said is None:
                kind, query = "name", " ".join(node.name.split("_"))
                if node.name.startswith("_") or " " not in query:
                    continue
            else:
                kind, query, doc = "docstring", " ".join(said.split("\n\n")[0].split()), node.body[0]
                if not 20 <= len(query) <= 400:
                    continue
                kept = [*lines[node.lineno - 1 : doc.lineno - 1], *lines[doc.end_lineno or doc.lineno : node.end_lineno]]
            yield kind, {"query": query, "document": textwrap.dedent("\n".join(kept))[:LONGEST]}


def set_pairs(data: RetrievalSet) -> Iterator[Pair]:
    """The right documents of a set's queries; where it has candidates, the wrong ones are their negatives."""
    for query, grades in zip(data.queries, data.grades, strict=True):
        wrong = [data.documents[place] for place, grade in grades.items() if grade <= 0] if data.candidates else []
        for place, grade in grades.items():
            if grade > 0:
                pair: Pair = {"query": query, "document": data.documents[place]}
                yield pair | ({"negatives": wrong} if wrong else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What will be measured."""

    queries: frozenset[str] = frozenset()
    """As `plain` has them: no pair of any source may ask one."""
    near: NearDuplicates = dataclasses.field(default_factory=lambda: NearDuplicates(()))
    """Documents: no pair of a package or of a set may have one that is nearly one of these."""

    def asks(self, query: str) -> bool:
        return plain(query) in self.queries


def plain(text: str) -> str:
    """Words alone.

    >>> plain("Who digs, and why?")
    'who digs and why'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def write_pairs(
    out: str | Path,
    files: Iterable[str | Path] = (),
    packages: Iterable[str] = (),
    sets: Iterable[RetrievalSet] = (),
    held_out: HeldOut = HeldOut(),
) -> dict[str, int]:
    """Writes a file of pairs for each source into a folder, each pair once.

    Args:
        out: the folder; made if need be.
        files: documents as JSON lines with `text` and perhaps `title` and `source`, or folders of them. A file named validation is left
            out: what is held out stays so.
        packages: installed ones, whose Python is read.
        sets: training splits.
        held_out: what will be measured, and is left out.

    Returns:
        Pairs by source: kind-source for documents, docstring-python and name-python for code, the set's name for sets.

    Raises:
        DataError: a file or package is missing or damaged.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    seen: set[bytes] = set()
    with contextlib.ExitStack() as stack:
        parts: dict[str, Any] = {}
        for source, pair in _all_pairs(files, packages, sets, held_out.near):
            digest = hashlib.blake2b(f"{pair['query']}\0{pair['document']}".encode(errors="replace"), digest_size=16).digest()
            if digest in seen or held_out.asks(pair["query"]) or not pair["query"].strip() or not pair["document"].strip():
                continue
            seen.add(digest)
            if source not in parts:
                parts[source] = stack.enter_context((out / f".{source}.part").open("w", encoding="utf-8"))
            parts[source].write(json.dumps({**pair, "source": source}, ensure_ascii=False) + "\n")
            counts[source] = counts.get(source, 0) + 1
    for source in counts:
        (out / f".{source}.part").replace(out / f"{source}.jsonl")
    return counts


def _all_pairs(
    files: Iterable[str | Path], packages: Iterable[str], sets: Iterable[RetrievalSet], near: NearDuplicates
) -> Iterator[tuple[str, Pair]]:
    long: Counter[str] = Counter()
    for file in document_files(files):
        name = source_of(file)
        if name == "validation" or not file.name.endswith(JSON_LINES):
            continue
        for place, row in read_rows(file):
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise DataError(f"{place}: wanted a row with a string 'text'; mend or remove it")
            source = row.get("source") or name
            for kind, pair in document_pairs(row["text"], row.get("title")):
                yield f"{kind}-{source}", pair
            if row.get("title") and long[source] < LONG_DOCUMENTS:
                pairs = list(long_pairs(row["text"], row["title"]))
                long[source] += bool(pairs)
                yield from ((f"long-{source}", pair) for pair in pairs)
    for document in python_documents(list(packages)):
        yield from ((f"{kind}-python", pair) for kind, pair in function_pairs(document["text"]) if not near.has(pair["document"]))
    for data in sets:
        yield from ((data.name, pair) for pair in set_pairs(data) if not near.has(pair["document"]))


def _section(paragraphs: list[str]) -> str:
    """Paragraphs up to the longest document, cut at a word."""
    whole = "\n\n".join(paragraph.strip() for paragraph in paragraphs).strip()
    return whole if len(whole) <= LONGEST else whole[:LONGEST].rsplit(" ", 1)[0]
