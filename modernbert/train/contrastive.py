"""Contrastive training and distillation of retrievers: one loop. `train_retriever(config, model)` starts a run, or goes on with it.

    torchrun --nproc-per-node 2 -m modernbert finetune dense MODEL …     several GPUs share each batch, and its negatives; the curve stays

    for each step                     a batch of pairs of one source, drawn by the sources' weights
        all texts to vectors          in groups of at most `micro_batch_tokens` tokens, cached (train/cached.py)
        loss over the whole batch     every process judges its share of the rows against all documents
        optimizer step at the schedule's rate
    now and then                      a log line, a checkpoint, dev sets searched

A run's folder holds `config.json` (the resolved settings), `log.jsonl`, `checkpoints/step-…`, `model/` (a folder of sentence-transformers'
or PyLate's kind, as of the last checkpoint) and, at the end, `result.json`.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from modernbert.checkpoint.lock import alone_in
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.weights import write_json
from modernbert.data.retrieval import RetrievalSource, read_retrieval
from modernbert.data.vectors import read_vectors
from modernbert.engine.batching import group_by_tokens
from modernbert.engine.hardware import choose_dtype, commit, environment
from modernbert.errors import ConfigError, DataError, TrainingError
from modernbert.eval.retrieval import RetrievalReport, evaluate_retrieval
from modernbert.eval.systems import engine_system
from modernbert.tasks.contrastive import Part, Vectors, columns_of, part_of, right_documents
from modernbert.tasks.pairs import read_pairs
from modernbert.train.batches import ahead, chosen_negatives, each_batch, filled, pair_rows, source_shares
from modernbert.train.cached import cached_backward, sum_gradients
from modernbert.train.claim import claim
from modernbert.train.distributed import World, join
from modernbert.train.optimizers import build_optimizers, set_learning_rates
from modernbert.train.retrieval_settings import FREE, ContrastiveConfig
from modernbert.train.retrievers import Retriever, make_retriever
from modernbert.train.schedules import wsd
from modernbert.train.state import Progress, resume, save


def train_retriever(config: ContrastiveConfig, model: str | Path | None = None) -> Path:
    """Trains a retriever and returns its folder.

    Args:
        config: of a recipe.
        model: where the weights come from: a packaged model, a folder, or a name on the hub; None is our own.

    Raises:
        ConfigError: settings that do not fit together, or not to the model.
        DataError: a file or a row of it cannot be used; names file, row and column.
        CheckpointError, TokenizerError: the model is missing, foreign or damaged.
        TrainingError: the folder holds another run, another process trains in it, or the loss is not finite.
    """
    folder = resolve(model)
    world = join(config.device)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(config.seed)
    retriever = make_retriever(config.retriever, folder, world.device, choose_dtype(world.device))
    out = Path(config.out)
    with alone_in(out, TrainingError) if world.leads else contextlib.nullcontext():
        run = _Run(config, retriever, world, out)
        if world.leads:
            claim(out, {"model": str(folder), **dataclasses.asdict(config)}, FREE)
        run.train()
    world.leave()
    return out / "model"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """A batch with what a step needs of it."""

    step: int
    size: int
    """Pairs."""
    part: Part
    sizes: tuple[list[int], list[int]]
    """Vectors of each query, and of each document."""
    groups: list[tuple[list[int], bool]]
    """Texts that go through the model together, by their numbers, and whether they are queries."""
    places: list[Tensor]
    """Of each group's vectors among all of the batch."""
    costs: list[int]
    """Of each group, in tokens."""


class _Run:
    """A run with its data: the loop, its steps, and what it leaves behind."""

    def __init__(self, config: ContrastiveConfig, retriever: Retriever, world: World, out: Path) -> None:
        self.config, self.retriever, self.world, self.out = config, retriever, world, out
        self.pairs = read_pairs(pair_rows(config.train), config.columns, retriever.encode)
        if self.pairs.cut and world.leads:
            tqdm.write(f"{self.pairs.cut:,} of {len(self.pairs.text_of_row):,} texts were cut", file=sys.stderr)
        if config.scores.weight and self.pairs.scores is None:
            raise DataError(f"scores.weight={config.scores.weight}: the pairs have no column {config.columns.scores!r}")
        self.shares = np.ones(1) if config.mixed else source_shares(self.pairs, config.weights)
        self.steps = math.ceil(config.epochs * len(self.pairs.query_P) / config.batch_pairs)
        self.dev = [
            read_retrieval(
                RetrievalSource(path=path, split=config.dev_split, query=config.columns.query, document=config.columns.document)
            )
            for path in config.dev
        ]
        self.teacher = read_vectors(config.teacher.file, self.pairs.texts) if config.teacher.weight else None
        self.untaught = {number for number, name in enumerate(self.pairs.sources) if name in config.teacher.not_for}
        if unknown := set(config.teacher.not_for) - set(self.pairs.sources):
            raise ConfigError(
                f"teacher.not_for={','.join(sorted(unknown))}: no such source of the pairs; there are {', '.join(self.pairs.sources)}"
            )
        width = 0 if self.teacher is None else self.teacher.shape[1]
        self.projection = config.teacher.projection(retriever.width, width).to(world.device)
        if any(not 1 <= width <= retriever.width for width in config.dims):
            raise ConfigError(f"dims={config.dims}: the vectors have {retriever.width} dimensions")

    def train(self) -> None:
        config, world = self.config, self.world
        module = nn.ModuleDict({"retriever": self.retriever.module, "projection": self.projection})
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizers = build_optimizers(module, config.optimizer)
        progress = Progress()
        checkpoints = self.out / "checkpoints"
        if resumed := resume(checkpoints, module, optimizers):
            progress, folder = resumed
            if world.leads:
                tqdm.write(f"resumed from {folder}: step {progress.step}", file=sys.stderr)
        bar = tqdm(total=self.steps, initial=progress.step, unit="step", disable=None if world.leads else True)
        source_P = np.zeros_like(self.pairs.source_P) if config.mixed else self.pairs.source_P
        batches = islice(each_batch(source_P, self.shares, config.batch_pairs, config.seed), progress.step, self.steps)
        prepared = ahead(lambda numbered: self.prepare(numbered[1], numbered[0]), enumerate(batches, progress.step))
        due = {math.ceil(n * self.steps / config.evaluations) for n in range(1, config.evaluations)}
        sums, since, rows = torch.zeros(2, device=world.device), time.perf_counter(), 0
        self.log({"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "step": progress.step, "processes": world.size})

        for batch in prepared:
            module.train()
            rate = wsd(
                progress.step,
                warmup_tokens=config.warmup * self.steps,
                decay_tokens=config.decay * self.steps,
                total_tokens=self.steps,
                decay_shape=config.decay_shape,
            )
            set_learning_rates(optimizers, rate)
            found, tokens = self.step(batch)
            sum_gradients(parameters, world)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

            sums += found
            rows += batch.size
            progress.step += 1
            progress.tokens += tokens
            if progress.step % config.log_every_steps == 0 or progress.step == self.steps:
                loss, right = (world.sum(sums) / rows).tolist()
                seconds = time.perf_counter() - since
                line = {"step": progress.step, "loss": round(loss, 5), "accuracy": round(right, 5), "rate": round(rate, 6)}
                self.log({**line, "pairs_per_second": round(rows / seconds, 1), "tokens": progress.tokens})
                bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{right:.3f}")
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at step {progress.step}; lower optimizer.lr and start again in another folder"
                    )
                sums, since, rows = torch.zeros(2, device=world.device), time.perf_counter(), 0
            bar.update()
            if world.leads and progress.step % config.save_every_steps == 0:
                save(checkpoints, module, optimizers, progress, config.keep_checkpoints)
                self.retriever.save(self.out / "model")
            if progress.step in due:
                self.search(progress.step)
        bar.close()
        if world.leads:
            save(checkpoints, module, optimizers, progress, config.keep_checkpoints)
            self.retriever.save(self.out / "model")
            report = self.search(progress.step)
            write_json(self.out / "result.json", self.result(report))

    def prepare(self, chosen: list[int], step: int) -> "_Prepared":
        """What a step needs that is made on the CPU, which a thread does while the step before runs."""
        config, pairs, retriever = self.config, self.pairs, self.retriever
        rng = np.random.default_rng([config.seed, step])
        kept = [chosen_negatives(pairs.negatives[pair], config.negatives, rng) for pair in chosen]
        negatives = [[pairs.negatives[pair][place] for place in places] for pair, places in zip(chosen, kept, strict=True)]
        documents, candidates = columns_of(pairs, chosen, negatives)
        queries = [int(row) for row in pairs.query_P[chosen]]
        sizes = (retriever.sizes(pairs.rows, queries, True), retriever.sizes(pairs.rows, documents, False))
        begins = np.cumsum([0, *sizes[0], *sizes[1]])
        groups: list[tuple[list[int], bool]] = []
        places, group_costs = [], []
        for numbers, is_query, offset in ((queries, True, 0), (documents, False, len(queries))):
            costs = retriever.tokens(pairs.rows, numbers, is_query)
            for group in group_by_tokens(costs, config.micro_batch_tokens):
                groups.append(([numbers[i] for i in group], is_query))
                group_costs.append(sum(costs[i] for i in group))
                places.append(
                    torch.from_numpy(np.concatenate([np.arange(begins[offset + i], begins[offset + i + 1]) for i in group]))
                )
        part = self.part(chosen, kept, queries, documents, candidates)
        return _Prepared(step=step, size=len(chosen), part=part, sizes=sizes, groups=groups, places=places, costs=group_costs)

    def step(self, batch: "_Prepared") -> tuple[Tensor, int]:
        """Adds this process's gradient of a batch's mean loss; returns its summed loss and right first guesses, and the batch's tokens."""
        config, pairs, retriever, world = self.config, self.pairs, self.retriever, self.world
        part = batch.part.to(world.device)
        places = [place.to(world.device) for place in batch.places]

        def forward(number: int) -> Tensor:
            # Dropout repeats itself, whoever computes the group.
            torch.manual_seed(hash((config.seed, batch.step, number)) % 2**62)
            return retriever.forward(pairs.rows, *batch.groups[number])

        found = torch.zeros(2, device=world.device)

        def loss_of(x_XD: Tensor) -> Tensor:
            loss, right = self.loss(retriever.join(x_XD, *batch.sizes), part)
            found.copy_(torch.stack([loss.detach(), right.float()]))
            return loss / batch.size

        last = list(itertools.accumulate(reversed(batch.costs[world.rank :: world.size])))
        held = max(1, sum(tokens <= config.micro_batch_tokens for tokens in last))
        cached_backward(places, retriever.width, forward, loss_of, world, held)
        return found, sum(batch.costs)

    def loss(self, vectors: Any, part: Part) -> tuple[Tensor, Tensor]:
        """The summed loss of this process's rows, and how many find their document first."""
        config = self.config
        every = slice(None)
        total, right = torch.zeros((), device=self.world.device), torch.zeros((), device=self.world.device)
        for width in config.dims or (None,):
            cut = vectors if width is None else vectors.cut(width)
            similar_RK = cut.similarities(part.rows_R, every)
            if config.in_batch.weight:
                similar_BR = cut.similarities(every, part.positive_R) if config.in_batch.symmetric else None
                total = total + config.in_batch.weight * config.in_batch.loss(similar_RK, similar_BR, part)
            if config.scores.weight:
                total = total + config.scores.weight * config.scores.loss(similar_RK, part)
            if part.teacher_query_BS is not None and config.teacher.kind == "similarities":
                total = total + config.teacher.weight * config.teacher.loss(cut, self.projection, similar_RK, part)
            right = (similar_RK.masked_fill(part.barred_RK, -torch.inf).argmax(-1) == part.positive_R).sum()
        total = total / max(1, len(config.dims))
        if part.teacher_query_BS is not None and config.teacher.kind != "similarities":
            assert isinstance(vectors, Vectors)
            total = total + config.teacher.weight * config.teacher.loss(vectors, self.projection, similar_RK, part)
        return total, right

    def part(
        self, chosen: list[int], kept: list[list[int]], queries: list[int], documents: list[int], candidates: list[list[int]]
    ) -> Part:
        """What this process's rows of a batch need to know."""
        pairs = self.pairs
        positive_B = torch.tensor([places[0] for places in candidates])
        rows_R = torch.arange(self.world.rank, len(chosen), self.world.size)
        more: dict[str, Tensor | None] = {}
        if self.config.scores.weight:
            assert pairs.scores is not None
            scores = [
                [pairs.scores[pair][0], *(pairs.scores[pair][1 + place] for place in places)]
                for pair, places in zip(chosen, kept, strict=True)
            ]
            more |= {
                "candidates_RC": filled([candidates[row] for row in rows_R.tolist()], -1),
                "scores_RC": filled([scores[row] for row in rows_R.tolist()], 0.0),
            }
        if self.teacher is not None and int(pairs.source_P[chosen[0]]) not in self.untaught:
            for name, numbers in (("teacher_query_BS", queries), ("teacher_document_KS", documents)):
                more[name] = torch.from_numpy(self.teacher[pairs.text_of_row[numbers]].astype(np.float32))
        return part_of(right_documents(pairs, chosen, documents, positive_B), positive_B, rows_R, **more)

    def search(self, step: int) -> RetrievalReport | None:
        """Searches the dev sets with the model as it is; the first process alone does."""
        if not self.dev or not self.world.leads:
            return None
        with torch.no_grad():
            report = evaluate_retrieval([engine_system("model", self.retriever.engine())], self.dev)
        self.log({"step": step, "dev": {score.data: round(score.mean, 5) for score in report.scores}})
        return report

    def result(self, report: RetrievalReport | None) -> dict[str, Any]:
        counts = np.bincount(self.pairs.source_P)
        sources = {name: int(count) for name, count in zip(self.pairs.sources, counts, strict=True)}
        return {
            "pairs": sources,
            "texts": len(self.pairs.texts),
            "environment": {**environment(self.world.device), "processes": self.world.size, "commit": commit()},
            "dev": None if report is None else report.to_json(),
        }

    def log(self, line: dict[str, Any]) -> None:
        if self.world.leads:
            with (self.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
