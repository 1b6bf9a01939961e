"""One model from several checkpoints of a run: the mean of their weights.

Source: ModernBERT-base is the average of the last and the three best checkpoints of its decay (Warner et al. 2024 §2.2.1; facts §2.1).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.training_state import best_states, load_state
from modernbert.errors import CheckpointError
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer


@torch.no_grad()
def average(run: str | Path, out: str | Path, steps: Sequence[int] = (), best: int | None = None) -> list[Path]:
    """Writes the mean of a run's checkpoints as a model folder, and returns the checkpoints that went into it.

    Args:
        run: the folder of a pre-training run; it keeps as many checkpoints as its `keep_checkpoints`.
        out: where the model goes.
        steps: which checkpoints; none named means all that are there.
        best: instead of `steps`: the last checkpoint and this many others, of those with the lowest loss on the validation shards.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
    """
    run = Path(run)
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"no checkpoints in {run}; wanted the folder of a pre-training run, such as runs/tiny")
    there = {int(path.name.removeprefix("step-")): path for path in sorted((run / "checkpoints").glob("step-*"))}
    missing = [step for step in steps if step not in there]
    if missing or not there:
        wanted = f"checkpoints of the steps {missing}" if missing else "checkpoints"
        raise CheckpointError(f"no {wanted} in {run / 'checkpoints'}; there are {sorted(there) or 'none'}")
    chosen = [there[step] for step in (steps or sorted(there))]
    if best is not None:
        last = there[max(there)]
        chosen = [state for state in best_states(run / "checkpoints", best + 1) if state != last][:best]
        if len(chosen) < best:
            raise CheckpointError(
                f"wanted {best} checkpoints beside the last with a validation_loss, found {len(chosen)} in {run / 'checkpoints'}; "
                f"train with validation=SHARDS keep_best={best + 1}"
            )
        chosen.append(last)
    model = load_model(MaskedLM, run / "model", dtype=torch.float32)
    parameters = dict(model.named_parameters())
    for n, folder in enumerate(chosen, 1):
        tensors, _ = load_state(folder)
        for name, parameter in parameters.items():  # the running mean: the first checkpoint replaces what was there
            parameter.lerp_(tensors[f"model.{name}"], 1 / n)
    save_model(model, model.config, out, tokenizer=Tokenizer.load(run / "model"))
    return chosen
