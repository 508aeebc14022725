"""The study beside an earlier revision of itself: ``python -m benchmarks.study``; resumes in its folder.

Both revisions run with the packages that are installed, one after the other on one machine, each from its
own checkout. A stage that trains is run with few and with more steps: the slope is what a step costs,
evaluations apart, and the rest is what a stage costs before and after. Beside an idle machine stands one
with one busy process.
From these, and from the steps and models that each revision's params.yaml asks for, follows what all
training takes. Writes study.md and study.csv; an hour on two cores.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.whitening import describe_machine
from fwstudy.execute import ENVIRONMENT

EARLIER = "da9e974"  # before the study was made fast
STEPS = (20, 80)  # of baseline and fine-tuning
OWN = 3  # models of the stage `train`
ROOT = Path(__file__).parents[1]
TRAINED = "train@0"
MEASURED = ("faces", "preprocess", "measure@0")


def checkout(revision: str, folder: Path) -> None:
    """The files of a revision in a folder, as a DVC project of its own; one that is there stays."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    run(folder, sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet", "--force")


def run(folder: Path, *command: str) -> float:
    """Run a command in a checkout, with its own package; returns the seconds it took."""
    paths = {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    start = time.perf_counter()
    # the present revision sets these itself; the earlier one knew none
    inherited = {key: value for key, value in os.environ.items() if key not in ENVIRONMENT}
    subprocess.run(command, cwd=folder, check=True, env=inherited | paths)
    return time.perf_counter() - start


def timed(folder: Path, *command: str) -> float:
    """`run`, from the start: without what a run that was interrupted has left for the next."""
    shutil.rmtree(folder / "data" / "partial", ignore_errors=True)
    return run(folder, *command)


def asked(folder: Path) -> dict:
    """The settings of a checkout as they were committed, kept beside it."""
    kept = folder.with_suffix(".yaml")
    if not kept.exists():
        kept.write_text((folder / "params.yaml").read_text())
    return yaml.safe_load(kept.read_text())


def ask(folder: Path, steps: int) -> None:
    """Set the steps of all models, with one evaluation at the end."""
    params = asked(folder)
    for name in ("baseline", "fine_tune"):
        params["train"][name] |= {"steps": steps, "evaluation_interval": steps}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@contextmanager
def neighbor(busy: bool) -> Iterator[None]:
    """Another process that keeps one core busy, or none."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def times(folder: Path) -> dict[str, float]:
    """Seconds of each stage, and of a training step, idle and with a busy neighbor.

    Stages that make what the others read are timed once: where they are done, DVC would skip them.
    """
    kept = folder.with_suffix(".json")
    found = json.loads(kept.read_text()) if kept.exists() else {}
    ask(folder, STEPS[0])
    for stage in MEASURED[:2]:
        if stage not in found:
            found[stage] = timed(folder, "dvc", "repro", stage)
            kept.write_text(json.dumps(found))
    for busy in (False, True):
        with neighbor(busy):
            seconds = []
            for steps in STEPS:
                ask(folder, steps)
                seconds.append(timed(folder, "dvc", "repro", "--single-item", "--force", TRAINED))
        state = " with one busy neighbor" if busy else ""
        step = (seconds[1] - seconds[0]) / (OWN * (STEPS[1] - STEPS[0]))
        found[f"training step{state}"] = step
        found[f"stage train besides steps{state}"] = seconds[0] - OWN * STEPS[0] * step
    found[MEASURED[2]] = timed(folder, "dvc", "repro", "--single-item", "--force", MEASURED[2])
    return found | projected(asked(folder), found)


def projected(params: dict, found: dict[str, float]) -> dict[str, float]:
    """What one model, and all training of the default list, takes: steps and starts of stages.

    Without the networks that explanations are compared on, which have other steps.
    """
    train, variants = params["train"], params.get("ablations", params.get("ablation"))
    generalization = params.get("generalization", params.get("generalisation"))
    triples = len(train["seeds"])
    triples += len(generalization["families"]) * len(generalization["seeds"])
    run_, full = variants["run"], variants["variants"]
    names = variants.get(run_, full) if isinstance(run_, str) else run_
    alone = len(names) * len(variants["seeds"])
    across = params.get("cross_dataset", {"sources": [], "trainings": []})
    single = across["trainings"].count("self_blended") * len(across["sources"])  # a baseline alone
    triples += len(across["trainings"]) * len(across["sources"]) - single
    baseline, tuned = (train[name]["steps"] for name in ("baseline", "fine_tune"))
    steps = triples * (baseline + 2 * tuned) + alone * tuned + single * baseline
    start = found["stage train besides steps"]
    seconds = steps * found["training step"] + (triples + (alone + single) / OWN) * start
    models = OWN * triples + alone + single
    return {"models": models, "one model": seconds / models, "all training": seconds}


def main() -> None:
    """Measure both revisions and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--earlier", default=EARLIER, help="revision to compare with")
    parser.add_argument("--folder", type=Path, required=True, help="of the two checkouts")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments, machine = parser.parse_args(), describe_machine()
    revisions = {"earlier": arguments.earlier, "present": "HEAD"}
    columns = {}
    for name, revision in revisions.items():
        asked_for = ["git", "rev-parse", "--short", revision]
        commit = subprocess.run(asked_for, cwd=ROOT, check=True, capture_output=True, text=True)
        folder = arguments.folder.resolve() / f"{name}-{commit.stdout.strip()}"
        checkout(revision, folder)
        columns[name] = times(folder)
    table = pd.DataFrame(columns).assign(ratio=lambda t: t["present"] / t["earlier"])
    table.to_csv(arguments.output / "study.csv", index_label="seconds")
    shown = table.map("{:.3g}".format).rename_axis("seconds").reset_index().to_markdown(index=False)
    text = f"# The study beside revision `{arguments.earlier}`\n\n{machine}\n\n{shown}\n"
    (arguments.output / "study.md").write_text(text)
    print(shown)


if __name__ == "__main__":
    main()
