"""Training: one optimizer loop for every model, selection on validation only, resumable."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Schedule
from fwstudy.training.batches import Batch, PairedBatches
from fwstudy.training.models import read_weights, save_weights
from fwstudy.whitening.sync import (
    all_gather_list,
    follow_first,
    local_shard,
    rank,
    share_of,
    synchronized,
)

Loss = Callable[[nn.Module, Batch], torch.Tensor]


def classification_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Binary cross-entropy of the logits with the labels: ()."""
    return functional.binary_cross_entropy_with_logits(model(batch.images)[:, 0], batch.labels)


def own_share(crops: CropSet) -> CropSet:
    """The part of the crops that falls to this process, of several."""
    return crops.take(local_shard(np.arange(len(crops))))


@torch.inference_mode()
def predict(model: nn.Module, crops: CropSet, batch_size: int = 64) -> np.ndarray:
    """The logit of every crop, in the manifest's order; positive means forged. Processes divide them.

    Returns:
        (len(crops),) float32.
    """
    model.eval()
    batches = own_share(crops).batches(batch_size, next(model.parameters()).device)
    return np.concatenate(all_gather_list([model(x)[:, 0].cpu().numpy() for x in batches]))


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,  # weight decay as a penalty, in the gradients
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}  # of params.yaml


def cosine(step: int, steps: int) -> float:
    """Linear warm-up over the first tenth, then half a cosine down to zero."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


DECAYS: dict[str, Callable[[int, int], float]] = {"cosine": cosine, "none": lambda step, steps: 1.0}


def learning_rate_factor(step: int, steps: int, decay: str | Sequence[float]) -> float:
    """What the learning rate is multiplied by.

    Args:
        step: counted from 0.
        steps: of the whole run.
        decay: a key of `DECAYS`, or shares of the run, at each of which the rate falls to a tenth.
    """
    if isinstance(decay, str):
        return DECAYS[decay](step, steps)
    return 0.1 ** sum(step >= share * steps for share in decay)


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, best: dict, history: list[dict]
) -> None:
    """Write weights, the optimizer's moments, the best weights so far and the history, in one step."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    save_weights(tensors, path, {"history": json.dumps(history)})


def restore_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Put back what `save_state` wrote; returns the best weights so far and the history.

    Raises:
        ValueError: the file is truncated; the message names it.
    """
    tensors, known = read_weights(path)
    groups: dict[str, dict] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    model.load_state_dict(groups["model"])
    state = optimizer.state_dict()
    for name, value in groups["optimizer"].items():
        index, _, moment = name.partition("/")
        state["state"].setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict(state)
    return groups["best"], json.loads(known["history"])


def fit(
    model: nn.Module,
    batches: PairedBatches,
    validation: CropSet,
    schedule: Schedule,
    checkpoint: Path,
    loss: Loss = classification_loss,
    after_step: Callable[[int], None] = lambda step: None,
    measure: Callable[[], dict[str, float]] = dict,
) -> pd.DataFrame:
    """Train a model in place and leave it with the weights that were best on validation.

    The validation AUC is taken every ``schedule.evaluation_interval`` steps and at the end;
    the run resumes from the last of these. Where several processes run, all call it alike and get the
    same history; each takes its share of every batch, gradients are averaged (`synchronized`), the mean
    loss is that over all shares, and the first writes the checkpoint.

    Args:
        model: gives one logit an image.
        batches: of the training split.
        validation: whole-face crops.
        checkpoint: file for the state of an unfinished run.
        loss: what is minimised.
        after_step: called with the number of steps done, e.g. to update a rotation.
        measure: called with each evaluation: further columns of the history.

    Returns:
        the history: columns step, loss (mean since the last evaluation), validation_auc, and those of
        ``measure``.

    Raises:
        RuntimeError: some processes see a checkpoint that others do not.
        ValueError: the pairs of a batch cannot be divided among the processes, or logits are not finite.
    """
    from sklearn.metrics import roc_auc_score  # slow to import

    device = next(model.parameters()).device
    optimizer = OPTIMIZERS[schedule.optimizer](
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    best, history, losses = {}, [], []
    if checkpoint.exists():
        best, history = restore_state(checkpoint, model, optimizer)
    start = history[-1]["step"] if history else 0
    if len(set(all_gather_list([start]))) > 1:
        raise RuntimeError(
            f"{checkpoint} is not seen by all processes: the machines of a training run must share the "
            "project's folder"
        )
    first, share, trained = rank() == 0, share_of(batches.half), synchronized(model)
    steps = range(start, schedule.steps)
    for step in tqdm(steps, "steps", initial=start, total=schedule.steps, disable=not first):
        model.train()
        torch.manual_seed(batches.seed + (step << 32))  # dropout, too, resumes exactly
        factor = learning_rate_factor(step, schedule.steps, schedule.decay)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * factor
        value = loss(trained, batches.batch(step, device, share))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        done = step + 1
        after_step(done)
        if done % schedule.evaluation_interval == 0 or done == schedule.steps:
            follow_first(model)
            logits = predict(model, validation)
            if not np.isfinite(logits).all():
                raise ValueError(
                    f"training diverged: after {done} steps logits are not finite; in params.yaml lower the "
                    f"learning_rate ({schedule.learning_rate:g}), or newton_steps of `norm: iternorm`"
                )
            score = roc_auc_score(validation.manifest["label"], logits)
            mean_loss = float(np.mean(all_gather_list(losses)))
            entry = {"step": done, "loss": mean_loss, "validation_auc": score}
            history.append(entry | measure())
            losses = []
            if score >= max(entry["validation_auc"] for entry in history):
                best = {name: value.clone() for name, value in model.state_dict().items()}
            if first:
                save_state(checkpoint, model, optimizer, best, history)
    model.load_state_dict(best)
    model.eval()
    if first:
        checkpoint.unlink(missing_ok=True)
    return pd.DataFrame(history)
