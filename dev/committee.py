"""Vectors of a committee of teachers, to teach a student whose vectors are as wide as one of theirs.

    python dev/committee.py PAIRS STUDENT OUT.parquet tiny-embed:0.3 st:MINILM:0.3 st:studied:0.4

Similarities shall be the members', each times its share. Their vectors one after another, each times the root of its share, have just
these; the directions that hold most of them, as many as the student has, are kept (a singular value decomposition), and turned to lie as
near to the student's vectors as they can (Schönemann 1966, doi 10.1007/BF02289451), so that it has little to relearn. OUT.json
keeps the shares.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

from modernbert.checkpoint.weights import write_json
from modernbert.data.vectors import write_vectors
from modernbert.eval.named import systems_named
from modernbert.eval.systems import Vectors
from modernbert.tasks.pairs import PairColumns, Pairs, read_pairs
from modernbert.train.batches import pair_rows


def main() -> None:
    pairs = read_pairs(pair_rows([sys.argv[1]]), PairColumns(), lambda some, is_query: ([[0]] * len(some), 0))
    members = [(name, float(share)) for name, _, share in (part.rpartition(":") for part in sys.argv[4:])]
    aim_ND = vectors(sys.argv[2], pairs)
    parts = [math.sqrt(share) * (aim_ND if name == sys.argv[2] else vectors(name, pairs)) for name, share in members]
    y_ND = turned(kept(torch.cat(parts, 1), aim_ND.shape[1]), aim_ND)
    print(f"mean cosine with {sys.argv[2]}: {(y_ND * aim_ND).sum(1).mean():.4f}")
    out = Path(sys.argv[3])
    write_json(out.with_suffix(".json"), dict(members))
    write_vectors(out, y_ND.cpu().numpy().astype(np.float16), pairs.texts)


def vectors(name: str, pairs: Pairs) -> torch.Tensor:
    """Unit vectors [texts, D] of a model, each text as the query that it is somewhere, or else as a document."""
    (system,) = systems_named(name)
    assert isinstance(system, Vectors), f"{name} gives no vector for a text"
    asked_N = np.zeros(len(pairs.texts), dtype=bool)
    asked_N[pairs.text_of_row[pairs.query_P]] = True
    order, found = [], []
    for is_query in (True, False):
        places = np.flatnonzero(asked_N == is_query)
        order.append(places)
        found.append(np.asarray(system.embed([pairs.texts[place] for place in places], is_query), dtype=np.float32))
    x_ND = torch.from_numpy(np.concatenate(found)[np.argsort(np.concatenate(order))])
    return torch.nn.functional.normalize(x_ND.to("cuda" if torch.cuda.is_available() else "cpu"), dim=-1)


def kept(x_NS: torch.Tensor, width: int) -> torch.Tensor:
    """The so many directions of most length."""
    lengths_S, directions_SS = torch.linalg.eigh((x_NS.T @ x_NS).double())
    print(f"kept {lengths_S[-width:].sum() / lengths_S.sum():.4f} of the squared length")
    return x_NS @ directions_SS[:, -width:].float()


def turned(y_ND: torch.Tensor, aim_ND: torch.Tensor) -> torch.Tensor:
    """Unit vectors, turned to lie near to others."""
    left_DD, _, right_DD = torch.linalg.svd((y_ND.T @ aim_ND).double())
    return torch.nn.functional.normalize(y_ND @ (left_DD @ right_DD).float(), dim=-1)


if __name__ == "__main__":
    main()
