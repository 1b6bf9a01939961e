"""Lays a model between others that began with the same weights, embedders or masked language models: each one's weights times its share.

    python dev/mean_of.py between distilled/model:0.35 embed/model:0.65

Shares add up to 1; `mean.json` in the folder keeps them. Source: Wortsman et al. 2022 (arXiv 2109.01903, 2203.05482): what fine-tuning
gains without what it forgets.
"""

import math
import sys
from pathlib import Path

import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.modules import read_modules, write_modules
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.weights import write_json
from modernbert.model.heads import Embedder, MaskedLM
from modernbert.text.tokenizer import Tokenizer


def main() -> None:
    out, parts = Path(sys.argv[1]), [part.rpartition(":") for part in sys.argv[2:]]
    folders, shares = [resolve(name) for name, _, _ in parts], [float(share) for _, _, share in parts]
    assert math.isclose(sum(shares), 1, abs_tol=1e-3), f"shares add up to {sum(shares)}, not to 1"
    modules = read_modules(folders[-1])
    kind: type[Embedder] | type[MaskedLM] = Embedder if modules else MaskedLM
    models = [load_model(kind, folder, dtype=torch.float32) for folder in folders]
    with torch.no_grad():
        for same in zip(*(model.parameters() for model in models), strict=True):
            same[-1].copy_(sum(share * weight for share, weight in zip(shares, same, strict=True)))
    save_model(models[-1], models[-1].config, out, tokenizer=Tokenizer.load(folders[-1]))
    write_json(out / "mean.json", dict(zip((name for name, _, _ in parts), shares, strict=True)))
    if modules:
        write_modules(out, models[-1].config, modules)


if __name__ == "__main__":
    main()
