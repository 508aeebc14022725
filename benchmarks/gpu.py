"""Whitening on a GPU beside BatchNorm and the layer as published: ``make benchmark-gpu``.

At most ten minutes on one GPU, without a network or data: what is trained on is rendered on the spot.
Writes gpu.md to read and gpu.csv, one row a measurement, section by section. As in
`benchmarks.whitening`, methods take turns in each round and ratios are taken within a round. What a
device, a mode or a layer cannot do is a row with the reason in place of a number. ``--quick`` rehearses
every line at toy size on any machine.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from benchmarks.whitening import INTERVAL, LAYERS, describe_machine, draw_features, time_of
from fwstudy.crops.cropset import CropSet
from fwstudy.faces.rendering.dataset import render_dataset
from fwstudy.params import load_params
from fwstudy.preprocess.build import build_crops
from fwstudy.runtime import default_device, seed_everything
from fwstudy.training.batches import PairedBatches
from fwstudy.training.trainer import classification_loss
from fwstudy.whitening import (
    FeatureWhitening,
    create_model,
    last_norm,
    replace_norm,
    update_statistics,
)
from fwstudy.whitening.covariance import as_rows

METHODS = {name: LAYERS[name] for name in ("BatchNorm2d", "iternorm", "exact", "exact, cholesky")}
METHODS["amortized"] = LAYERS["amortized"]
METHODS["amortized, cholesky"] = partial(
    FeatureWhitening.from_batch_norm, whiten_every=INTERVAL, solver="cholesky"
)
TOLERANCE = 1e-3  # of outputs and gradients on device and CPU, as a share of the largest value
TARGETS = {"amortized": 0.95, "exact": 0.9}  # images a second in training, BatchNorm = 1
PRECISIONS = {"float32": "highest", "TF32": "high"}  # of torch.set_float32_matmul_precision
BATCH = 64  # images, of the layer alone
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    maps: tuple = ((256, 16), (728, 19), (2048, 10))  # channels, side: Xception's at 299 px
    prepared: tuple = (728,)  # channels of the layers that are compiled or captured: minutes each
    batch: int = BATCH
    backbone: tuple = ("legacy_xception", 299)  # name, side of the images in pixels
    batches: tuple = (64, 128)
    rounds: int = 3
    seconds: float = 0.05  # least time of a timing
    people: int = 12
    crop_size: int = 128
    steps: int = 200  # of training on CPU and device


QUICK = Scale(
    maps=((8, 4),),
    prepared=(8,),
    batch=4,
    backbone=("test_efficientnet", 32),
    batches=(4,),
    rounds=2,
    seconds=1e-3,
    crop_size=64,
    steps=4,
)


def capture(layer: nn.Module, features: Tensor) -> Callable:
    """The layer's step as one CUDA graph."""
    if features.device.type != "cuda":
        raise RuntimeError("no CUDA device")
    return torch.cuda.make_graphed_callables(layer, (features,))


@dataclass(frozen=True)
class Mode:
    """A way to run a layer.

    Args:
        autocast: whether in bfloat16.
        precision: of products of float32 matrices, key of PRECISIONS.
        memory: format of the features.
        prepare: from the layer and an example to what is called.
    """

    autocast: bool = False
    precision: str = "float32"
    memory: torch.memory_format = torch.contiguous_format
    prepare: Callable[[nn.Module, Tensor], Callable] = lambda layer, features: layer


MODES = {
    "float32": Mode(),
    "TF32": Mode(precision="TF32"),
    "bfloat16 autocast": Mode(autocast=True),
    "channels last": Mode(memory=torch.channels_last),
}
PREPARED_MODES = {
    "compiled": Mode(prepare=lambda layer, features: torch.compile(layer)),
    "CUDA graph": Mode(prepare=capture),
}


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Products of float32 matrices in that precision, a key of PRECISIONS."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compared(calls: dict[str, Callable], reference: str, scale: Scale, **labels) -> Iterator[dict]:
    """A row a call: median time and ratio to the reference. A call that fails gives its reason."""
    working, reasons = {}, {}
    for name, call in calls.items():
        try:
            call()
            working[name] = call
        except Exception as error:  # noqa: BLE001  whatever a compiler or a driver raises is what is reported
            reasons[name] = reason(error)
    rounds = range(scale.rounds)
    times = pd.DataFrame(
        [{m: time_of(m, call, scale.seconds) for m, call in working.items()} for _ in rounds]
    )
    for name in calls:
        row = labels | {"method": name, "remark": reasons.get(name, "")}
        if name in times:
            row["seconds"] = times[name].median()
            if reference in times:
                row["ratio"] = (times[name] / times[reference]).median()
        yield row


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def measure_layers(scale: Scale, device: torch.device) -> Iterator[dict]:
    """(a) The layer alone: a step of training, and evaluation, in every mode."""
    for channels, side in tqdm(scale.maps, "layers"):
        drawn = islice(draw_features(channels, side, scale.batch), INTERVAL)
        features = [batch.to(device) for batch in drawn]
        for name, mode in (MODES | (PREPARED_MODES if channels in scale.prepared else {})).items():
            batches = [b.to(memory_format=mode.memory).requires_grad_() for b in features]
            layers = {m: make(nn.BatchNorm2d(channels)).to(device) for m, make in METHODS.items()}
            for layer in layers.values():
                if getattr(layer, "whiten_every", 1) > 1:
                    update_statistics(layer, layer, features)
            labels = {"section": "layer", "channels": channels, "mode": name}
            with products_in(mode.precision):
                steps = {m: step_of(layer, mode, batches) for m, layer in layers.items()}
                for row in compared(steps, "BatchNorm2d", scale, phase="train step", **labels):
                    yield row | correlation_of(layers[row["method"]], mode, batches[0])
                for layer in layers.values():
                    layer.eval()
                calls = {m: forward_of(layer, mode, batches[0]) for m, layer in layers.items()}
                yield from compared(calls, "BatchNorm2d", scale, phase="evaluation", **labels)


@torch.no_grad()
def correlation_of(layer: nn.Module, mode: Mode, features: Tensor) -> dict[str, float]:
    """Mean absolute correlation between channels of the layer's output in training."""
    with torch.autocast(features.device.type, torch.bfloat16, enabled=mode.autocast):
        output = layer(features)
    matrix = torch.corrcoef(as_rows(output).double().T).abs()
    count = len(matrix)
    return {"mean_correlation": ((matrix.sum() - count) / (count * (count - 1))).item()}


def step_of(layer: nn.Module, mode: Mode, batches: list[Tensor]) -> Callable[[], None]:
    """Forward and backward pass of one batch after the other; prepared when it is first called."""
    turns, prepared = cycle(batches), []

    def step() -> None:
        features = next(turns)
        if not prepared:
            prepared.append(mode.prepare(layer, features))
        with torch.autocast(features.device.type, torch.bfloat16, enabled=mode.autocast):
            output = prepared[0](features)
        output.float().square().sum().backward()
        features.grad = None
        layer.zero_grad()

    return step


def forward_of(layer: nn.Module, mode: Mode, features: Tensor) -> Callable[[], None]:
    """A forward pass without gradients; prepared when it is first called."""
    prepared = []

    @torch.no_grad()
    def forward() -> None:
        if not prepared:
            prepared.append(mode.prepare(layer, features.detach()))
        with torch.autocast(features.device.type, torch.bfloat16, enabled=mode.autocast):
            prepared[0](features.detach())

    return forward


def measure_models(scale: Scale, device: torch.device) -> Iterator[dict]:
    """(b) A whole model with another last norm: images a second in training, and peak memory."""
    name, size = scale.backbone
    torch.manual_seed(0)
    original = create_model(name).to(device, memory_format=torch.channels_last)
    place = last_norm(original)
    for batch in tqdm(scale.batches, "models"):
        images = torch.rand(batch, 3, size, size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = (torch.arange(batch, device=device) % 2).float()
        models = {method: copy.deepcopy(original).train() for method in METHODS}
        for method, model in models.items():
            replace_norm(model, place, METHODS[method])
            model.to(device)
        steps = {m: train_step_of(model, images, labels) for m, model in models.items()}
        about = {"section": "model", "model": name, "batch": batch, "phase": "train step"}
        for precision in PRECISIONS:
            with products_in(precision):
                for row in compared(steps, "BatchNorm2d", scale, mode=precision, **about):
                    if "seconds" in row:
                        row["images_per_second"] = batch / row["seconds"]
                        row["peak_gb"] = peak_memory(steps[row["method"]], device)
                    yield row


def train_step_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of SGD in bfloat16 autocast."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = model(images)[:, 0]
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return step


def peak_memory(call: Callable, device: torch.device) -> float:
    """Peak of the device's allocator in a call, GB; NaN on a CPU."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) / 1e9


def rendered_crops(scale: Scale, folder: Path) -> CropSet:
    """A small crop set of rendered people, made here."""
    params = load_params(ROOT / "params.yaml").preprocess
    clips = render_dataset(folder / "faces", scale.people, 1, 2, scale.crop_size, 0, -1)
    split = {"train": 0.5, "validation": 0.25, "test": 0.25}
    settings = {"crop_scale": params.crop_scale, "crop_size": scale.crop_size}
    return build_crops(clips, folder / "crops", ["c23"], split, 0, settings, -1)[0]


def measure_training(scale: Scale, device: torch.device) -> Iterator[dict]:
    """(c) How fast batches come, with and without the model; (d) the same training on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        crops = rendered_crops(scale, Path(folder)).select(split="train")
        batches = PairedBatches(crops, 32, 0, 0.5)
        start = time.perf_counter()
        for step in range(scale.steps):
            batches.batch(step, device)
        seconds = (time.perf_counter() - start) / scale.steps
        about = {"section": "training", "model": "fwstudy_small", "batch": 32}
        rate = {"seconds": seconds, "images_per_second": 32 / seconds}
        yield about | {"phase": "loading alone"} | rate
        losses = {}
        for place in dict.fromkeys((device, torch.device("cpu"))):
            losses[place.type], seconds = train(batches, place, scale.steps)
            rate = {"seconds": seconds, "images_per_second": 32 / seconds}
            yield about | {"phase": "loading and training", "mode": place.type} | rate
        tail = {place: np.mean(values[-scale.steps // 4 :]) for place, values in losses.items()}
        text = ", ".join(f"{place} {value:.4f}" for place, value in tail.items())
        yield about | {"phase": "agreement", "remark": f"mean loss of the last quarter: {text}"}


def train(batches: PairedBatches, device: torch.device, steps: int) -> tuple[list[float], float]:
    """Losses of some steps of the whitened small backbone, and seconds a step."""
    seed_everything(0)
    model = create_model("fwstudy_small").to(device, memory_format=torch.channels_last).train()
    replace_norm(model, last_norm(model), LAYERS["exact"])
    model.to(device)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    start = time.perf_counter()
    for step in range(steps):
        loss = classification_loss(model, batches.batch(step, device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, (time.perf_counter() - start) / steps


def measure_agreement(scale: Scale, device: torch.device) -> Iterator[dict]:
    """(d) Output and gradient of one layer on the device and on a CPU, in float32."""
    for channels, side in scale.maps:
        features = next(draw_features(channels, side, scale.batch))
        for method, make in METHODS.items():  # amortized: with the matrix that it starts from
            found = []
            for place in (torch.device("cpu"), device):
                layer = make(nn.BatchNorm2d(channels)).to(place)
                given = features.to(place, copy=True).requires_grad_()
                output = layer(given)
                output.sin().sum().backward()
                found.append([output.detach().cpu(), given.grad.cpu()])
            pairs = zip(*found, strict=True)
            worst = max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
            verdict = "within" if worst <= TOLERANCE else "beyond"
            remark = f"largest difference {worst:.1e} of the largest value, {verdict} {TOLERANCE:g}"
            yield {"section": "agreement", "channels": channels, "method": method, "remark": remark}


SECTIONS = {
    "layer": measure_layers,
    "model": measure_models,
    "training": measure_training,
    "agreement": measure_agreement,
}


def report(table: pd.DataFrame, machine: str) -> str:
    """The tables as Markdown, with the targets.

    Args:
        table: rows of the sections.
        machine: one line about it.
    """
    blocks = [f"# Whitening on a GPU\n\n{machine} `make benchmark-gpu`"]
    blocks += [f"## Targets\n\n{targets(table).to_markdown(index=False)}"]
    rows = table[table["section"] == "layer"]
    for phase, part in rows.groupby("phase", sort=False):
        wide = part.assign(ms=1e3 * part["seconds"]).pivot_table(
            "ms", ["channels", "method"], "mode", sort=False
        )
        title = f"## The layer alone: ms, {phase} of {BATCH} images"
        blocks.append(f"{title}\n\n{as_markdown(wide.reset_index())}")
    failed = rows[rows["remark"].fillna("").ne("")]
    if len(failed):
        failed = failed[["channels", "mode", "phase", "method", "remark"]]
        blocks.append(f"What could not be done:\n\n{as_markdown(failed)}")
    for name, part in table[table["section"] != "layer"].groupby("section", sort=False):
        shown = part.dropna(axis=1, how="all").drop(columns="section")
        blocks.append(f"## {name.capitalize()}\n\n{as_markdown(shown)}")
    return "\n\n".join(blocks) + "\n"


def as_markdown(table: pd.DataFrame) -> str:
    """Three digits, counts as such, and nothing where there is nothing."""

    def shown(value: object) -> object:
        if not isinstance(value, float):
            return value
        return "" if pd.isna(value) else f"{value:.0f}" if value.is_integer() else f"{value:.3g}"

    return table.astype(object).map(shown).to_markdown(index=False, disable_numparse=True)


def targets(table: pd.DataFrame) -> pd.DataFrame:
    """What was aimed at in training a whole model, and what was measured, by size of the batch."""
    models = table[(table["section"] == "model") & (table["mode"] == "TF32")]
    models = models.assign(share=1 / models["ratio"]).set_index("method")
    found = []
    for method, least in TARGETS.items():
        for batch, part in models.groupby("batch"):
            shares = part["share"].filter(regex=f"^{method}").dropna()
            if shares.empty:  # the device's memory was too small
                continue
            found.append(
                {
                    "images a second, BatchNorm = 1": f"{method}, at least {least}",
                    "batch": int(batch),
                    "measured": round(shares.max(), 3),
                    "with": shares.idxmax(),
                    "as published": round(part["share"]["iternorm"], 3),
                    "met": "yes" if shares.max() >= least else "**no**",
                }
            )
    return pd.DataFrame(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args(arguments)
    scale, device = QUICK if options.quick else Scale(), default_device()
    machine = describe_machine()
    if device.type != "cuda" and not options.quick:
        raise SystemExit("error: no CUDA device; `python -m benchmarks.gpu --quick` rehearses")
    rows: list[dict] = []
    for name, section in SECTIONS.items():
        try:
            rows += section(scale, device)
        except Exception as error:  # noqa: BLE001  the other sections are still measured
            rows.append({"section": name, "remark": reason(error)})
        table = pd.DataFrame(rows)
        table.to_csv(options.output / "gpu.csv", index=False)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: a rehearsal"
    text = report(table, f"{card}. {machine}")
    (options.output / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
