#!/usr/bin/env bash
# DVC 3.67.1 with ruamel.yaml 0.19.1: `-S key=[]` on a block list whose key has a comment breaks params.yaml.
#
# `dvc exp run -S key=value` rewrites params.yaml through ruamel's round trip. A valid file in which a list in
# block form has a comment on its key's line, emptied in this way, comes back with the line break after the
# list lost: two later keys stand on one line, and no YAML parser reads the file. Nothing is reported; the
# next command stops with a parser error. Lists without such a comment are written well.
#
# Runs the function behind `-S` on both forms and shows the files; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet dvc==3.67.1 ruamel.yaml==0.19.1 pyyaml==6.0.3
cat > params.yaml <<'YAML'
preprocess:
  quality: c23
  further_test_qualities:  # the test split alone
  - raw
  - c40
  split:
    train: 0.6
    validation: 0.2
YAML
sed 's/  # the test split alone//' params.yaml > plain.yaml
env/bin/python - <<'PYTHON'
from importlib.metadata import version

import yaml
from dvc.utils.hydra import apply_overrides

print("dvc", version("dvc"), "ruamel.yaml", version("ruamel.yaml"))
answers = {}
for name in ("params.yaml", "plain.yaml"):
    apply_overrides(name, ["preprocess.further_test_qualities=[]"])
    text = open(name).read()
    print(f"--- {name}\n{text}")
    try:
        answers[name] = yaml.safe_load(text)["preprocess"]["split"] == {"train": 0.6, "validation": 0.2}
    except yaml.YAMLError as error:
        answers[name] = False
        print(str(error).splitlines()[0])
print("read back as meant:", answers)
assert answers == {"params.yaml": False, "plain.yaml": True}
PYTHON
