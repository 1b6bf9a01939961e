"""The loss on shards kept apart from training: always the same rows and masks, so that checkpoints compare."""

import torch
from torch import nn

from modernbert.data.loader import Loader
from modernbert.data.shards import TokenShards
from modernbert.model.losses import IGNORE
from modernbert.train.distributed import World
from modernbert.train.settings import Phase, PretrainConfig

MASK_RATE = 0.15
"""As ModernBERT evaluated, whatever rate it trained with (facts §2.1)."""


@torch.no_grad()
def validate(loss_of: nn.Module, shards: TokenShards, phase: Phase, config: PretrainConfig, world: World) -> tuple[float, float]:
    """Nats a masked token and the share of right first guesses, over `validation_tokens` of the shards, or all if they have fewer.

    Never compiled: a graph for it takes longer (9 to 13 s a length of rows on an H200) than it would save in a hundred validations.

    Args:
        loss_of: a `MaskedLMLoss`, as the processes share it. Every process must call this.
        shards: tokens that are in no training shard.
        phase: gives the length of rows.
        config: of the run.
        world: the processes, among which the rows are shared.
    """
    loader = Loader(
        shards,
        length=phase.length,
        rows_per_batch=config.micro_batch_tokens // phase.length,
        mask_rate=MASK_RATE,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
    )
    sums = torch.zeros(3, device=world.device)
    tokens, wanted = 0, min(config.validation_tokens, int(shards.lengths.sum()))
    batches = iter(loader)
    loss_of.eval()
    while tokens < wanted:
        made, _ = next(batches)
        batch = made.to(world.device, non_blocking=True)
        with torch.compiler.set_stance("force_eager"):
            loss, right = loss_of(batch.batch, batch.masked_M, batch.labels_M)
        sums += torch.stack([loss, right, (batch.labels_M != IGNORE).sum()])
        tokens += made.tokens
    loss_of.train()
    batches.close()
    loss, right, labels = world.sum(sums).tolist()
    return loss / max(1, labels), right / max(1, labels)
