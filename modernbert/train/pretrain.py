"""Pre-training: one loop, read top to bottom. `pretrain(config)` starts a run, or goes on where it stopped.

    for each phase                    tokens, row length, masking rate and learning-rate shape are data
        for each step                 packed and masked batches from the loader
            loss of each micro-batch, divided by the labels of the whole step
            optimizer step at the schedule's rate
        now and then                  a log line, the loss on what was held out, a checkpoint

A run's folder holds `config.json` (the resolved settings), `log.jsonl`, `checkpoints/step-…`, and `model/`: a Hugging Face folder with
its tokenizer, as of the last checkpoint.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.lock import alone_in
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.config import ModelConfig
from modernbert.data.loader import Loader
from modernbert.data.shards import TokenShards
from modernbert.errors import DataError, TrainingError
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.model.losses import IGNORE, MaskedLMLoss
from modernbert.model.tiling import begin_from
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.claim import claim
from modernbert.train.distributed import World, join, repeatable
from modernbert.train.log import Log
from modernbert.train.optimizers import build_optimizers, set_learning_rates
from modernbert.train.replay import replays
from modernbert.train.schedules import micro_batches_after
from modernbert.train.settings import Phase, PretrainConfig, check, settings
from modernbert.train.state import Checkpoints, Progress, resume
from modernbert.train.validation import validate
from modernbert.train.vocabulary import with_vocabulary

FREE = {
    *("out", "shards", "device", "compile", "head_chunk", "recompute", "norms_again", "shard_weights"),
    *("validation", "validation_tokens", "save_every_tokens", "keep_checkpoints", "keep_best", "log_every_steps", "tensorboard"),
}
"""Settings that may change while a run goes on: they decide where and how, not what is learnt."""


def pretrain(config: PretrainConfig) -> Path:
    """Trains a masked language model and returns the folder of the finished model.

    Raises:
        ConfigError: settings that do not fit together.
        DataError: the shards are missing, unfinished or damaged.
        TrainingError: the folder holds another run, another process trains in it, or the loss is not finite.
    """
    world = join(config.device)
    shards = [TokenShards.open(folder, verify=world.leads) for folder in config.shards]
    tokenizer = shards[0].tokenizer()
    shape = shape_of(resolve(config.begin_from)) if config.begin_from and config.keep_shape else {}
    config = dataclasses.replace(config, model=fit_to_tokenizer(config.model.with_(**shape), tokenizer))
    check(config)
    torch.set_float32_matmul_precision("high")

    held_out = TokenShards.open(config.validation, verify=world.leads) if config.validation else None
    if held_out and held_out.tokenizer().sha256 != tokenizer.sha256:
        raise DataError(f"{config.validation} was made with another tokenizer than {config.shards[0]}; prepare it with the same")

    run = Path(config.out)
    alone = alone_in(run, TrainingError) if world.leads else contextlib.nullcontext()
    with alone, repeatable(config.deterministic), compiling(config):
        model = build_model(config, tokenizer, world)  # before the folder is claimed: what cannot begin leaves it free
        if world.leads:
            claim(run, settings(config), FREE)
        train(config, model, shards, held_out, tokenizer, world, run)
    world.leave()
    return run / "model"


def train(
    config: PretrainConfig,
    model: MaskedLM,
    shards: Sequence[TokenShards],
    held_out: TokenShards | None,
    tokenizer: Tokenizer,
    world: World,
    run: Path,
) -> None:
    """The run itself, from its last checkpoint or the beginning to the finished model in `run / "model"`."""
    loss_of = share_out(MaskedLMLoss(model, z_loss=config.z_loss, chunk=config.head_chunk), config, world)
    optimizers = build_optimizers(model, config.optimizer, compile=config.compile and not config.shard_weights)
    progress = Progress()
    checkpoints = Checkpoints(run, model, optimizers, tokenizer, world, keep=config.keep_checkpoints, keep_best=config.keep_best)
    if resumed := resume(checkpoints.folder, model, optimizers):
        progress, folder = resumed
        if world.leads:
            tqdm.write(f"resumed from {folder}: step {progress.step}, {progress.tokens:,} tokens", file=sys.stderr)

    planned = sum(phase.tokens for phase in config.phases)
    log = Log(run / "log.jsonl", planned, progress, world, tensorboard=config.tensorboard)

    def save(phase: Phase) -> None:
        scores = validate(loss_of, held_out, phase, config, world) if held_out else None
        if scores:
            log.validated(progress, *scores)
        checkpoints.save(progress, scores and scores[0])

    with checkpoints:
        for index, phase in enumerate(config.phases):
            before = model.config.global_rope_theta
            if index < progress.phase:
                turn(model, phase, phase.tokens, before)
                continue
            batches = iter(loader(config, shards, index, progress, world))
            while progress.phase_tokens < phase.tokens:
                checkpoints.check()
                turn(model, phase, progress.phase_tokens, before)
                count = micro_batches_after(
                    progress.phase_tokens, warmup_tokens=phase.batch_warmup_tokens, largest=config.micro_batches
                )
                with log.waiting():
                    micro_batches = [next(batches) for _ in range(count)]
                rate = phase.rate(progress.phase_tokens)
                set_learning_rates(optimizers, rate)
                torch.manual_seed(world.seed(config.seed, progress.step))  # dropout repeats itself in a resumed run
                on_device = [batch.to(world.device, non_blocking=True) for batch, _ in micro_batches]
                labels = world.sum(torch.stack([(batch.labels_M != IGNORE).sum() for batch in on_device]).sum()).clamp(min=1)
                for number, batch in enumerate(on_device, 1):
                    with world.without_sync(loss_of) if number < count else contextlib.nullcontext():
                        loss, right = loss_of(batch.batch, batch.masked_M, batch.labels_M)
                        (loss * (world.size / labels)).backward()  # the processes' mean of this is the mean over all labels
                    log.add(loss.detach(), right)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()

                tokens = sum(batch.tokens for batch, _ in micro_batches)
                progress.step += 1
                progress.tokens += tokens
                progress.phase_tokens += tokens
                progress.loader = micro_batches[-1][1]
                log.count([batch for batch, _ in micro_batches], labels)
                if progress.step % config.log_every_steps == 0 or progress.phase_tokens >= phase.tokens:
                    log.write(progress, rate, config.model)
                if progress.tokens // config.save_every_tokens > (progress.tokens - tokens) // config.save_every_tokens:
                    save(phase)
            progress.phase, progress.phase_tokens, progress.loader = index + 1, 0, None
            batches.close()
        log.close()
        save(phase)


def build_model(config: PretrainConfig, tokenizer: Tokenizer, world: World) -> MaskedLM:
    """The model as the run begins it, on its device and ready to train."""
    model = MaskedLM(config.model)
    init_weights(model, config.model, torch.Generator().manual_seed(config.seed))
    if config.begin_from:
        folder = resolve(config.begin_from)
        found, old = load_model(MaskedLM, folder, dtype=torch.float32), Tokenizer.load(folder)
        if old.sha256 != tokenizer.sha256:
            found = with_vocabulary(found, old, tokenizer)
        begin_from(model, found, keep_type=config.keep_type)
    model.to(world.device).train()
    model.model.compute_dtype = getattr(torch, config.compute_dtype)
    model.model.recompute = config.recompute
    return model


def share_out(loss_of: MaskedLMLoss, config: PretrainConfig, world: World) -> nn.Module:
    """The model with its loss, compiled if so wanted, as the processes share it."""
    layers = loss_of.model.model.layers
    if not config.shard_weights:
        if config.compile:
            loss_of.compile(dynamic=False, mode="reduce-overhead" if replays_steps(loss_of.model, config, world) else "default")
        return world.parallel(loss_of)
    if config.compile:  # layer by layer: between them weights are gathered, which no graph can hold
        for layer in layers:
            layer.compile(dynamic=False)
    return world.shard(loss_of, layers)


def replays_steps(model: MaskedLM, config: PretrainConfig, world: World) -> bool:
    """Whether a micro-batch is recorded as CUDA graphs and replayed: a small model's GPU would wait for the host to start its kernels.

    One micro-batch a step, as gradients of the next would be added where a replay writes them; and one process, as the exchange between
    several hangs on hooks that a graph does not call.
    """
    yarn = any(phase.global_rope_factor for phase in config.phases)
    return world.size == 1 and config.micro_batches == 1 and not yarn and replays(model, config.model, world.device)


@contextlib.contextmanager
def compiling(config: PretrainConfig) -> Iterator[None]:
    """A block with the compiler's settings of a run.

    Each length, mask rate and base of the rotary frequencies has a graph of fixed sizes, kept for phases that come back to them; PyTorch
    would give up after eight. With `norms_again` the way back may make again what a product reads there: the outputs of norms.
    """
    if not config.compile:
        yield
        return
    import torch._dynamo.config as dynamo  # with the compiler, which takes seconds
    import torch._functorch.config as functorch

    graphs = sum(1 + (phase.theta_steps if phase.theta_tokens else 0) for phase in config.phases)
    with (
        dynamo.patch(recompile_limit=max(8, graphs)),
        functorch.patch(ban_recompute_materialized_backward=not config.norms_again),
    ):
        yield


def turn(model: MaskedLM, phase: Phase, tokens: int, before: float) -> None:
    """Sets the rotation as it is after `tokens` of a phase."""
    wanted: dict[str, float] = {"global_rope_theta": phase.theta(tokens, before)}
    if phase.local_rope_theta:
        wanted["local_rope_theta"] = phase.local_rope_theta
    if phase.global_rope_factor:
        wanted |= {
            "global_rope_factor": phase.global_rope_factor,
            "global_rope_length": round(phase.length / phase.global_rope_factor),
        }
    if any(getattr(model.config, name) != value for name, value in wanted.items()):
        model.set_rope(**wanted)


def loader(config: PretrainConfig, shards: Sequence[TokenShards], index: int, progress: Progress, world: World) -> Loader:
    """The batches of a phase, from where the run stands."""
    phase = config.phases[index]
    return Loader(
        shards,
        length=phase.length,
        rows_per_batch=config.micro_batch_tokens // phase.length,
        mask_rate=phase.mask_rate,
        mask_share=phase.mask_share,
        random_share=phase.random_share,
        weights=phase.weights,
        upsampling=tuple(zip(phase.long_from, phase.long_times, strict=True)),
        seed=config.seed + index,
        state=progress.loader,
        rank=world.rank,
        world=world.size,
    )


def shape_of(folder: Path) -> dict[str, Any]:
    """The fields of a folder's config that decide its weights' shapes and what they compute; not dropout, vocabulary or labels."""
    found = read_config(folder)
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_types", "local_attention")
    rotation = ("global_rope_theta", "local_rope_theta", "global_rope_factor", "global_rope_length", "max_position_embeddings")
    return {name: getattr(found, name) for name in (*sizes, *rotation, "norm_eps", "tie_word_embeddings", "classifier_pooling")}


def fit_to_tokenizer(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The same architecture with the tokenizer's vocabulary and special ids."""
    return model.with_(
        vocab_size=tokenizer.vocab_size,
        unk_token_id=tokenizer.unk_id,
        cls_token_id=tokenizer.cls_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
        mask_token_id=tokenizer.mask_id,
    )
