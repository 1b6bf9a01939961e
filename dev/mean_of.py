"""Lays a model between two others of one training, embedders or masked language models: each weight (1 − share) times the first one's and
share times the second's.

    python dev/mean_of.py distilled/model embed/model 0.65 between

Source: Wortsman et al. 2022 (arXiv 2109.01903): what fine-tuning gains without what it forgets.
"""

import sys
from pathlib import Path

import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.modules import read_modules, write_modules
from modernbert.model.heads import Embedder, MaskedLM
from modernbert.text.tokenizer import Tokenizer


def main() -> None:
    first, second = map(Path, sys.argv[1:3])
    share, out = float(sys.argv[3]), Path(sys.argv[4])
    modules = read_modules(second)
    kind: type[Embedder] | type[MaskedLM] = Embedder if modules else MaskedLM
    start, end = (load_model(kind, folder, dtype=torch.float32) for folder in (first, second))
    with torch.no_grad():
        for a, b in zip(start.parameters(), end.parameters(), strict=True):
            b.lerp_(a, 1 - share)
    save_model(end, end.config, out, tokenizer=Tokenizer.load(second))
    if modules:
        write_modules(out, end.config, modules)


if __name__ == "__main__":
    main()
