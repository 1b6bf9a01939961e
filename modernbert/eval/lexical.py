"""BM25, the baseline that every search is measured against. The only door to bm25s.

Words are runs of letters and digits, in lower case; names in code are cut where their case changes (`readFile` and `read_file` are read
and file), which changes next to nothing for prose. Endings stay: no stemmer, no stop words.
"""

import os
import re
from collections.abc import Sequence

import numpy as np

from modernbert.errors import MissingExtraError

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def words_of(text: str) -> list[str]:
    """The words of a text or of code.

    >>> words_of("def readFile(path_to_XML): # naïve, 2nd")
    ['def', 'read', 'file', 'path', 'to', 'xml', 'na', 'ï', 've', '2', 'nd']
    """
    return [word.lower() for word in _WORD.findall(text)]


class Lexical:
    """An index for BM25 over some documents.

    Source: Robertson and Zaragoza 2009, in Lucene's variant with Lucene's k1 and b, which were not tuned.
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        """Indexes the documents. Raises MissingExtraError: bm25s is not installed."""
        # where bm25s finds JAX it starts it, which would take three quarters of a GPU
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("BM25 needs bm25s: pip install 'modernbert[eval]'") from error
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._documents = len(documents)
        tokens = [words_of(text) for text in documents]
        self._known = {word for words in tokens for word in words}
        if self._known:
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """The score of each document, float32; 0 where no word of the query occurs."""
        words = [word for word in words_of(query) if word in self._known]
        return self._index.get_scores(words) if words else np.zeros(self._documents, dtype=np.float32)
