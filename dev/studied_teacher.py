"""Lets a sentence-transformers model study: contrastively, on part of the pairs that its student will see all of.

    python dev/studied_teacher.py PAIRS MINILM OUT seed=2 lr=1e-4 steps=150 scale=30 weights=codenn_sql:16,nq_oracle:10

PAIRS is a folder of `modernbert prepare pairs`; MINILM a folder of a model of BERT's kind with mean pooling; OUT gets the same folder
with other weights, and the settings in `studied.json`. `weights` are shares of the steps: a batch is of one source. Each teacher leaves
three queries of ten out, others than those of another seed, so that a committee of them (`dev/committee.py`) knows every pair as one that
some of it have not seen. Wants a GPU.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from modernbert.checkpoint.weights import write_json
from modernbert.tasks.contrastive import InBatch, columns_of, part_of, right_documents
from modernbert.tasks.pairs import PairColumns, TokenRows, read_pairs
from modernbert.train.batches import each_batch, pair_rows

_BATCH, _LENGTH, _TOKENS, _SEEN = 768, 256, 49_152, 0.7
"""Pairs of a batch; tokens of the longest text; of a group that goes through the model together, padding counted; share of queries."""


def main() -> None:
    folder, out = sys.argv[2], Path(sys.argv[3])
    said = dict(part.split("=", 1) for part in sys.argv[4:])
    seed, lr, steps = int(said["seed"]), float(said["lr"]), int(said["steps"])
    torch.manual_seed(seed)
    teacher = SentenceTransformer(folder)
    tokenizer, model = teacher.tokenizer.backend_tokenizer, teacher[0].auto_model.float().train()
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LENGTH)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    encode = lambda texts, _: ([row.ids for row in tokenizer.encode_batch(list(texts))], 0)  # noqa: E731
    pairs = read_pairs(pair_rows([sys.argv[1]]), PairColumns(), encode)
    wanted = {name: float(share) for name, _, share in (part.rpartition(":") for part in said["weights"].split(","))}
    shares = np.array([*(wanted.get(name, 0.0) for name in pairs.sources), 0.0])
    seen_P = np.random.default_rng(seed).random(int(pairs.query_P.max()) + 1)[pairs.query_P] < _SEEN
    batches = each_batch(np.where(seen_P, pairs.source_P, len(pairs.sources)), shares / shares.sum(), _BATCH, seed)
    matrices, others = ([p for p in model.parameters() if (p.ndim > 1) == many] for many in (True, False))
    kinds = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer, objective = torch.optim.AdamW(kinds, lr=lr, betas=(0.9, 0.98)), InBatch(scale=float(said["scale"]), symmetric=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
        chosen = next(batches)
        documents, candidates = columns_of(pairs, chosen, [[]] * len(chosen))
        positive_B = torch.tensor([places[0] for places in candidates])
        right_BK = right_documents(pairs, chosen, documents, positive_B)
        part = part_of(right_BK, positive_B, torch.arange(len(chosen))).to(model.device)
        x_XD = vectors(model, pairs.rows, [*map(int, pairs.query_P[chosen]), *documents])
        similar_BK = x_XD[: len(chosen)] @ x_XD[len(chosen) :].T
        loss = objective.loss(similar_BK, similar_BK[:, part.positive_R], part) / len(chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    shutil.copytree(folder, out, dirs_exist_ok=True)
    model.save_pretrained(out)
    write_json(out / "studied.json", {"begins": folder, **said})


def vectors(model: torch.nn.Module, rows: TokenRows, numbers: list[int]) -> torch.Tensor:
    """Unit vectors [texts, D], the texts in groups of like length."""
    device = next(model.parameters()).device
    order = np.argsort(-rows.lengths[numbers], kind="stable")
    parts, first = [], 0
    while first < len(order):
        places = order[first : first + max(1, _TOKENS // len(rows[numbers[order[first]]]))]
        first += len(places)
        some = [torch.from_numpy(rows[numbers[place]]).long() for place in places]
        ids_BL = torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(device)
        lengths_B1 = torch.tensor([[len(row)] for row in some], device=device)
        mask_BL = (torch.arange(ids_BL.shape[1], device=device) < lengths_B1).long()
        with torch.autocast(device.type, torch.bfloat16):
            x_BLD = model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        parts.append(torch.nn.functional.normalize((x_BLD.float() * mask_BL[..., None]).sum(1), dim=-1))
    return torch.cat(parts)[torch.from_numpy(np.argsort(order)).to(device)]


if __name__ == "__main__":
    main()
