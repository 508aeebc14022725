"""What whitening costs and what it gives, beside the layer as published: ``make benchmark``.

Writes whitening.md to read and whitening.csv, one row a measurement. Methods take turns in each round
and ratios are taken within a round, so that a machine that slows down does so for all; tables show
the median over the rounds and the smallest and largest ratio. An untimed call comes before each
timing (`torch.utils.benchmark.Timer.blocked_autorange`). Memory is what PyTorch's allocator hands
out at the peak of a call, on top of inputs, weights and buffers, by `torch.profiler`: it repeats
exactly, where the memory of the process does not, but leaves out buffers inside BLAS. CPU only.
"""

import argparse
import copy
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import accumulate, cycle, islice, product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer
from tqdm import tqdm

from benchmarks.alignment import align_max, cayley_search, mean_objective
from fwstudy.whitening import (
    FeatureWhitening,
    IterNormWhitening,
    align_mean,
    create_model,
    fold,
    last_norm,
    list_norms,
    random_rotation,
    replace_norm,
    update_statistics,
    whiteness,
)

INTERVAL = 10  # steps between two whitening matrices when amortized; batches that take turns
CONDITION = 1e4  # condition number of the features' covariance
CONCEPTS = 16
LAYERS = {  # from a BatchNorm2d
    "BatchNorm2d": copy.copy,
    "iternorm": IterNormWhitening.from_batch_norm,
    "exact": FeatureWhitening.from_batch_norm,
    "exact, shrinkage 0": partial(FeatureWhitening.from_batch_norm, shrinkage=0.0),
    "exact, newton_schulz": partial(FeatureWhitening.from_batch_norm, solver="newton_schulz"),
    "exact, cholesky": partial(FeatureWhitening.from_batch_norm, solver="cholesky"),
    "amortized": partial(FeatureWhitening.from_batch_norm, whiten_every=INTERVAL),
}
# Timed together, so that one of them computes the matrix:
CALLS = dict.fromkeys(("amortized", "amortized, cholesky"), INTERVAL)
OURS = ("exact", "amortized")
SOLVED = (*OURS, "exact, cholesky")
MODELS = {  # what stands in how many places of a model, counted from the last norm
    **{norm: (norm, 1) for norm in ("BatchNorm2d", "iternorm", *OURS)},
    **{f"exact, {count} layers": ("exact", count) for count in (2, 3)},
}
FIRST = ["section", "model", "channels", "shape", "method", "phase", "rounds"]  # columns
HIDDEN = ["section", "locations", "seconds", "ratio_low", "ratio_high"]  # in the CSV only


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    maps: tuple = ((64, 32), (256, 16), (728, 8), (1024, 7), (2048, 5))  # channels, side
    batch: int = 32
    speedups: tuple = ((2048, 10), (728, 3.5), (256, 2))  # channels, least speed-up aimed at
    backbones: tuple = (  # options, side of the images in pixels, images
        ("legacy_xception", {}, 128, 16),
        ("test_efficientnet", {"output_stride": 16}, 128, 32),
    )
    drift_map: tuple = (64, 16)  # channels, side
    drifts: tuple = (1e-3, 1e-2)  # of the weights in a step, shares of their norm
    intervals: tuple = (1, 5, 10, 50)
    alignments: tuple = (64, 256, 728)  # channels
    searches: tuple = (1, 2, 3, 5, 10)  # calls
    rounds: int = 7
    seconds: float = 0.2  # least time of a timing


QUICK = Scale(
    maps=((8, 8), (16, 2)),
    batch=4,
    speedups=((16, 10), (8, 5)),
    backbones=(("test_efficientnet", {"output_stride": 16}, 32, 4),),
    drift_map=(8, 8),
    drifts=(1e-2,),
    intervals=(1, 5),
    alignments=(24,),
    searches=(1, 2),
    rounds=2,
    seconds=1e-3,
)


def compare(rounds: Sequence[dict], reference: str, seconds: float, **labels) -> pd.DataFrame:
    """Time of a call, its ratio to the reference's within each round, and peak memory.

    Args:
        rounds: for each round a function without arguments for each method.
        reference: one of the methods.
        seconds: least time of one timing.
        labels: columns with a constant.
    """
    times = [{m: time_of(m, call, seconds) for m, call in calls.items()} for calls in rounds]
    times = pd.DataFrame(times)
    ratios = times.div(times[reference], axis=0)
    columns = {
        "rounds": len(rounds),
        "seconds": times.median(),
        "reference": reference,
        "ratio": ratios.median(),
        "ratio_low": ratios.min(),
        "ratio_high": ratios.max(),
        "peak_mb": pd.Series({name: _peak_memory(name, call) for name, call in rounds[0].items()}),
    }
    table = pd.DataFrame(columns).loc[times.columns].assign(**labels)
    return table.rename_axis("method").reset_index()


def time_of(name: str, call: Callable, seconds: float) -> float:
    """Seconds a call, of at least so many seconds of them; `Timer` waits for the device."""
    names, threads = {"call": call, "calls": CALLS.get(name, 1)}, torch.get_num_threads()
    timer = Timer("for _ in range(calls): call()", globals=names, num_threads=threads)
    return timer.blocked_autorange(min_run_time=seconds).median / names["calls"]


def _peak_memory(name: str, call: Callable) -> float:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(CALLS.get(name, 1)):
            call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    memory.sort(key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in memory), default=0) / 2**20


def draw_features(channels: int, side: int, batch: int) -> Iterator[Tensor]:
    """Batches of one Gaussian population, its eigenvalues evenly spaced in their logarithm."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.logspace(0, -1, channels, base=CONDITION)
    scale = (spectrum / spectrum.mean()).sqrt()
    mixing = scale[:, None] * random_rotation(channels, generator)
    mean = torch.randn(channels, generator=generator)
    while True:
        normal = torch.randn(batch, side, side, channels, generator=generator)
        yield (normal @ mixing + mean).movedim(-1, 1)


def measure_layers(scale: Scale) -> pd.DataFrame:
    """The layer alone: train step, evaluation, and how white its output is in training."""
    tables = []
    for channels, side in tqdm(scale.maps, "layers"):
        batches = list(islice(draw_features(channels, side, scale.batch), INTERVAL))
        batches = [batch.requires_grad_() for batch in batches]
        gradient = torch.randn_like(batches[0])
        layers = {name: make(nn.BatchNorm2d(channels)) for name, make in LAYERS.items()}
        update_statistics(layers["amortized"], layers["amortized"], batches)
        steps = {
            name: partial(_layer_step, layer, cycle(batches), gradient)
            for name, layer in layers.items()
        }
        labels = {"channels": channels, "shape": _shape(batches[0])}
        train = compare([steps] * scale.rounds, "iternorm", scale.seconds, **labels)
        with torch.no_grad():
            white = pd.DataFrame([whiteness(layer(batches[0])) for layer in layers.values()])
        train = train.join(white[["mean_correlation", "mean_variance"]])
        train["locations"] = batches[0][:, 0].numel()
        calls = {name: partial(_forward, m.eval(), batches[0]) for name, m in layers.items()}
        evaluation = compare([calls] * scale.rounds, "BatchNorm2d", scale.seconds, **labels)
        tables += [train.assign(phase="train step"), evaluation.assign(phase="evaluation")]
    return pd.concat(tables)


def _layer_step(layer: nn.Module, batches: Iterator[Tensor], gradient: Tensor) -> None:
    features = next(batches)
    layer(features).backward(gradient)
    features.grad = None
    layer.zero_grad()


@torch.no_grad()
def _forward(model: nn.Module, images: Tensor) -> None:
    model(images)


def _shape(batch: Tensor) -> str:
    return "x".join(map(str, batch.shape))


def measure_drift(scale: Scale) -> pd.DataFrame:
    """How white the output stays when the matrix is held while the layer before it learns.

    That layer, a 1 x 1 convolution and at first the identity, takes random steps.
    """
    rows = []
    channels, length = scale.drift_map[0], max(scale.intervals)
    cases = list(product(scale.drifts, ("oas", 0), scale.intervals))
    for drift, shrinkage, interval in tqdm(cases, "drift"):
        torch.manual_seed(0)
        features = draw_features(*scale.drift_map, scale.batch)
        layer = FeatureWhitening(channels, shrinkage=shrinkage, whiten_every=interval)
        update_statistics(layer, layer, islice(features, INTERVAL))
        weight, found = torch.eye(channels), []
        for step, batch in zip(range(2 * length), features, strict=False):
            weight += drift * torch.randn(channels, channels) / channels**0.5
            with torch.no_grad():
                output = layer(torch.einsum("nchw,dc->ndhw", batch, weight))
            if step >= length:
                found.append(whiteness(output))
        case = {"method": f"k = {interval}, shrinkage {shrinkage}", "phase": f"{drift:.1%} a step"}
        case |= {"channels": channels, "shape": _shape(batch), "rounds": length}
        means = pd.DataFrame(found)[["mean_correlation", "mean_variance"]].mean()
        rows.append(case | means.to_dict())
    return pd.DataFrame(rows)


def measure_models(scale: Scale) -> pd.DataFrame:
    """Whole models with other last norms: a step of SGD, and evaluation before and after folding."""
    tables = []
    for name, options, size, batch in tqdm(scale.backbones, "models"):
        torch.manual_seed(0)
        images = torch.rand(INTERVAL, batch, 3, size, size)
        batches = [one.contiguous(memory_format=torch.channels_last) for one in images]
        original = create_model(name, **options).to(memory_format=torch.channels_last)
        place, norms = last_norm(original), list_norms(original)
        models = {method: copy.deepcopy(original) for method in MODELS}
        for method, (norm, count) in MODELS.items():
            for name_of_norm in norms[: norms.index(place) + 1][-count:]:
                replace_norm(models[method], name_of_norm, LAYERS[norm])
        steps = {
            norm: partial(_model_step, m, torch.optim.SGD(m.parameters(), 1e-3), cycle(batches))
            for norm, m in models.items()
        }
        channels = original.get_submodule(place).num_features
        labels = {"model": name, "channels": channels, "shape": _shape(batches[0])}
        train = compare([steps] * scale.rounds, "BatchNorm2d", scale.seconds, **labels)
        models["exact, folded"] = fold(models["exact"].eval(), batches[0][:2])
        calls = {norm: partial(_forward, m.eval(), batches[0]) for norm, m in models.items()}
        evaluation = compare([calls] * scale.rounds, "BatchNorm2d", scale.seconds, **labels)
        tables += [train.assign(phase="train step"), evaluation.assign(phase="evaluation")]
    return pd.concat(tables)


def _model_step(model: nn.Module, optimizer, batches: Iterator[Tensor]) -> None:
    logits = model(next(batches))[:, 0]
    labels = torch.arange(len(logits)) % 2.0
    binary_cross_entropy_with_logits(logits, labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def measure_alignment(scale: Scale) -> pd.DataFrame:
    """One closed-form alignment against sequences of the published search; a round is a seed."""
    tables = []
    for channels in tqdm(scale.alignments, "alignment"):
        rounds, shares = [], []
        for seed in range(scale.rounds):
            generator = torch.Generator().manual_seed(seed)
            start = random_rotation(channels, generator)
            maps = torch.randn(CONCEPTS, 8, channels, 4, 4, generator=generator)
            maps += torch.randn(CONCEPTS, 1, channels, 1, 1, generator=generator)
            means = maps.mean((1, 3, 4)).mT.contiguous()
            methods = {"align_mean": partial(align_mean, means, start)}
            for count in scale.searches:
                methods[f"search, {count} calls"] = partial(_search, means, start, count)
            methods["align_max"] = partial(_align_max, maps, start)
            found = {name: align().double() for name, align in methods.items()}
            rounds.append(methods)
            shares.append({name: mean_objective(r, means.double()) for name, r in found.items()})
        labels = {"channels": channels, "shape": f"{channels}x{CONCEPTS}", "phase": "alignment"}
        table = compare(rounds, "align_mean", scale.seconds / 4, **labels)
        shares = pd.DataFrame(shares)
        shares = shares.div(shares["align_mean"], axis=0)
        table["objective"], table["objective_high"] = shares.median().values, shares.max().values
        tables.append(table)
    return pd.concat(tables)


def _search(means: Tensor, rotation: Tensor, count: int) -> Tensor:
    for _ in range(count):
        rotation = cayley_search(means, rotation)
    return rotation


def _align_max(maps: Tensor, start: Tensor) -> Tensor:
    return align_max(list(maps), previous=start)[0]


def most_times(channels: int, locations: int, structured: float = 1) -> float:
    """How many times the operations of the exact layer, with Cholesky, iternorm's train step has.

    Args:
        structured: cost of a product with a symmetric result or a triangular factor, as a share of a
            full one.
    """
    large, small = locations * channels**2, channels**3
    symmetric = structured * large  # the covariance
    triangular = 4 * structured * small  # rotation times matrix, and three of the factor's gradient
    exact = 4 * large + symmetric + small + triangular + 2 / 3 * small
    return (7 * large + 40 * small) / exact


SECTIONS = {  # what to measure, title, notes
    "layer": (
        measure_layers,
        "The layer alone, and how white its output is in training",
        f"""Gradients reach the input, scale and shift. Features are Gaussian with condition number
{CONDITION:g}; {INTERVAL} batches take turns. iternorm is the layer as published. The amortized layer knows
their covariance beforehand, as in the study;
its time is the mean over {INTERVAL} steps, of which one computes the matrix. mean_correlation: absolute,
over pairs of channels. In evaluation all whitening layers do the same.

Operations of a train step with M locations, in multiply-adds: exact, 5 products of M C^2 (covariance and
its gradient; output and its two gradients) and, with Cholesky, 5 of C^3 (rotation times matrix and the
gradient of it, three in the gradient of the factor) and 2/3 C^3 (the factor and its inverse); with eigh
7 of C^3 and the eigendecomposition. iternorm, 7 of M C^2 (covariance and its gradient, output and its
two gradients, rotation and its gradient) and 40 of C^3 (3 products in each of 5 steps; 6 backward in
each but the first, which starts from the identity and has 1). So exact training can be at most {most_times(728, 2048):.1f} times as fast as iternorm at 728 channels
and 2048 locations, and {most_times(256, 8192):.1f} times at 256 and 8192. The targets there, 3.5 and 2, are out of the exact
layer's reach; the amortized layer meets them. If products with a symmetric result or a triangular factor took
half the time (PyTorch has none), it would be {most_times(728, 2048, 0.5):.1f} and {most_times(256, 8192, 0.5):.1f} times.
The amortized layer needs 3 products of M C^2. At 2048 channels there are fewer locations than channels:
`exact` then solves in the space of the locations, which Cholesky cannot.""",
    ),
    "drift": (
        measure_drift,
        "What it costs in whiteness to hold the matrix for k steps",
        """The layer before takes random steps, a share of the norm of its weights; means over the second
half of the steps. Batches are new, so correlations by chance are included where k > 1.""",
    ),
    "model": (
        measure_models,
        "Whole models",
        """The last BatchNorm2d is replaced; of several layers, those that are defined before it as well. A train
step is forward, backward and a step of SGD, from random weights.""",
    ),
    "alignment": (
        measure_alignment,
        "One alignment against the published search",
        f"""{CONCEPTS} concepts; a round is a seed. The calls of a search follow each other. objective: sum of the
concepts' mean activations, as a share of align_mean's, median and largest. align_max has another
objective and is there for information. The first calls of a search are cheap because they stop early,
far from the optimum: compare times at equal objective.""",
    ),
}


def judge(table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """The targets, the worst that was measured for each method, and whether they are met."""
    rows = []

    def check(target: str, query: str, column: str, low=-math.inf, high=math.inf) -> None:
        chosen = table.query(query)
        if chosen.empty:
            raise ValueError(f"nothing was measured for the target {target!r}")
        excess = (chosen[column] - high).combine(low - chosen[column], max)
        for _, row in chosen.loc[excess.groupby(chosen["method"], sort=False).idxmax()].iterrows():
            met = "yes" if low <= row[column] <= high else "**no**"
            shown = _ratio(row) if column == "ratio" else f"{row[column]:.4f}"
            rows.append((target, row["method"], f"{row['channels']} channels", shown, met))

    step = f"section == 'layer' and phase == 'train step' and method in {OURS}"
    solved = f"section == 'layer' and phase == 'train step' and method in {SOLVED}"
    for channels, factor in scale.speedups:
        here = f"{solved} and channels == {channels}"
        check(f"layer: train step <= 1/{factor} of iternorm", here, "ratio", high=1 / factor)
    check("layer: train step never slower than iternorm", step, "ratio", high=1)
    enough = "section == 'layer' and locations >= 4 * channels and method.str.match('exact|amort')"
    check("whiteness: mean correlation <= 0.01", enough, "mean_correlation", high=0.01)
    check("whiteness: variance 1 +- 0.02", enough, "mean_variance", 0.98, 1.02)
    first = scale.backbones[0][0]
    step = f"model == '{first}' and phase == 'train step' and method in {OURS}"
    check(f"{first}: train step <= 1.25 BatchNorm2d", step, "ratio", high=1.25)
    for name, *_ in scale.backbones:
        folded = f"model == '{name}' and method == 'exact, folded'"
        check(f"{name}: evaluation <= 1.02 BatchNorm2d", folded, "ratio", high=1.02)
    search = "section == 'alignment' and method.str.startswith('search')"
    most = f"{search} and channels == {max(scale.alignments)}"
    check("alignment: search takes >= 100 align_mean", most, "ratio", low=100)
    check("alignment: objective <= align_mean's", search, "objective_high", high=1 + 1e-6)
    return pd.DataFrame(rows, columns=["target", "method", "worst at", "measured", "met"])


def _ratio(row: pd.Series) -> str:
    return f"{row['ratio']:.3g} ({row['ratio_low']:.3g} to {row['ratio_high']:.3g})"


def report(table: pd.DataFrame, targets: pd.DataFrame, machine: str) -> str:
    """All as Markdown. Memory in MB of 2^20 bytes; ratios are of times, to the reference's."""
    parts = ["# Whitening: time, memory, whiteness", machine, "## Targets"]
    parts.append(targets.to_markdown(index=False))
    for section, (_, title, notes) in SECTIONS.items():
        rows = table[table["section"] == section].dropna(axis=1, how="all")
        shown = rows.drop(columns=HIDDEN, errors="ignore")
        if "seconds" in rows:
            shown["ratio"] = rows.apply(_ratio, axis=1)
            shown.insert(shown.columns.get_loc("reference"), "ms", rows["seconds"] * 1e3)
        shown = shown.astype(object).where(shown.notna(), "")
        parts += [f"## {title}", notes, shown.to_markdown(index=False, floatfmt=".4g")]
    return "\n\n".join(parts) + "\n"


def describe_machine() -> str:
    """Processor, cores, threads, load at this moment, versions and date."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "numpy"))
    return (
        f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; load "
        f"{os.getloadavg()[0]:.1f} before; Python {platform.python_version()}, {versions}; {date.today()}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, write whitening.md and whitening.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args(arguments)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no progress messages of the profiler
    scale, machine = QUICK if options.quick else Scale(), describe_machine()
    tables = [measure(scale).assign(section=name) for name, (measure, *_) in SECTIONS.items()]
    table = pd.concat(tables, ignore_index=True)
    table = table[[*FIRST, *table.columns.difference(FIRST, sort=False)]]
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "whitening.csv", index=False)
    targets = judge(table, scale)
    text = report(table, targets, machine)
    (options.output / "whitening.md").write_text(text, encoding="utf-8")
    print(targets.to_markdown(index=False))


if __name__ == "__main__":
    main()
