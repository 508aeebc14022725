#!/usr/bin/env bash
# DVC 3.67.1: one output with `cache: false` keeps a whole stage out of the run-cache.
#
# A study whose stages write data (cached) and a small table that git tracks (`cache: false`) expects that a
# parameter which goes back to an earlier value is answered by "is cached - skipping run, checking out
# outputs", as DVC does for stages without such an output. Seen instead: the command runs again, although the
# data of that value lie in the cache and DVC says nothing of the reason. The same table declared under
# `plots` or `metrics`, also with `cache: false`, does not have this effect.
#
# Prints what each form does when a parameter goes 1 -> 2 -> 1; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet dvc==3.67.1
export PATH="$folder/env/bin:$PATH" DVC_NO_ANALYTICS=1
dvc --version

third_run() { # section of dvc.yaml that declares the table
    mkdir "$1" && cd "$1"
    dvc init --no-scm --quiet
    printf 'value: 1\n' > params.yaml
    cat > dvc.yaml <<YAML
stages:
  train:
    cmd: cat params.yaml > model.txt && cat params.yaml > table.csv
    params: [value]
    outs:
      - model.txt
$2
YAML
    dvc repro --quiet
    printf 'value: 2\n' > params.yaml && dvc repro --quiet
    printf 'value: 1\n' > params.yaml && dvc repro 2>&1 | tee log
    if grep -q "is cached - skipping run" log; then echo skipped > answer; else echo ran > answer; fi
    cd ..
}

# A stage needs a dependency to have a run-cache at all: the parameter file is one.
third_run outs "      - table.csv: {cache: false}"
third_run plots "    plots:
      - table.csv: {cache: false}"
echo "table under outs:  $(cat outs/answer)"
echo "table under plots: $(cat plots/answer)"
[ "$(cat outs/answer)" = ran ] && [ "$(cat plots/answer)" = skipped ]
