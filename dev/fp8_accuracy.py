"""What fp8 costs a model: cosines of its hidden states to those in bfloat16, on texts.

    python dev/fp8_accuracy.py MODEL_FOLDER FILE.jsonl.gz … > table.md

Up to 40 lines of each file, every string of more than 40 characters in them, shuffled with seed 0, the first 1,000, rows of up to 1,024
tokens. On a GPU with fp8 by its tensor cores, elsewhere by the definition, in a minute or two on one core.
"""

import copy
import gzip
import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch

from modernbert.batch import pack
from modernbert.checkpoint.folder import class_of, load_model
from modernbert.engine.hardware import choose_device
from modernbert.model.encoder import Encoder
from modernbert.model.fp8 import replace_linears
from modernbert.model.heads import pool
from modernbert.text.tokenizer import Tokenizer

LINES, TEXTS, LONGEST, TOGETHER = 40, 1000, 1024, 20


def main(folder: Path, files: list[str]) -> None:
    texts = [text for file in files for text in strings(file)]
    random.Random(0).shuffle(texts)
    rows = [row for row in Tokenizer.load(folder).encode(texts[:TEXTS]) if len(row) <= LONGEST]
    device = choose_device()
    model = load_model(class_of(folder), folder, device=device, dtype=torch.bfloat16).eval()
    exact = model if isinstance(model, Encoder) else model.model
    assert isinstance(exact, Encoder)
    fp8 = copy.deepcopy(exact)
    replace_linears(fp8)
    cosines: dict[str, list[torch.Tensor]] = {"mean of a text": [], "first token of a text": [], "tokens": []}
    with torch.inference_mode():
        for start in range(0, len(rows), TOGETHER):
            batch = pack(rows[start : start + TOGETHER]).to(device)
            x_TD, y_TD = exact(batch).float(), fp8(batch).float()
            cosines["mean of a text"].append(torch.cosine_similarity(pool(x_TD, batch, "mean"), pool(y_TD, batch, "mean")))
            cosines["first token of a text"].append(torch.cosine_similarity(pool(x_TD, batch, "cls"), pool(y_TD, batch, "cls")))
            cosines["tokens"].append(torch.cosine_similarity(x_TD, y_TD))
    print(f"{len(rows)} texts, {sum(map(len, rows)):,} tokens, {device.type}\n")
    print("| cosine of | n | median | 1 % | least |\n|---|---:|---:|---:|---:|")
    for name, found in cosines.items():
        all_X = torch.cat(found).cpu().numpy()
        print(f"| {name} | {len(all_X):,} | {np.median(all_X):.5f} | {np.percentile(all_X, 1):.5f} | {all_X.min():.5f} |")


def strings(file: str) -> list[str]:
    with gzip.open(file, "rt") as lines:
        found = [json.loads(line).values() for line in itertools.islice(lines, LINES)]
    return [value for values in found for value in values if isinstance(value, str) and len(value) > 40]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
