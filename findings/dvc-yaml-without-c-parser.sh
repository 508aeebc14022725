#!/usr/bin/env bash
# DVC 3.67.1 with ruamel.yaml 0.19.1, as pip installs them: its files are read by a parser in pure Python.
#
# Guess: DVC reads dvc.yaml, dvc.lock and params.yaml by `YAML(typ="safe")`, which is libyaml, in C; its maintainers
# say so (treeverse/dvc, issue 8884, 2023).
#
# Seen: up to 0.18 ruamel.yaml required the package ruamel.yaml.clib, from 0.19 on it is an extra. Neither DVC nor
# anything it requires asks for the extra. So a new installation has no parser in C, says nothing, and takes several
# times as long; the content read is the same. `pip install ruamel.yaml.clib` is the remedy.
#
# Reads one lock file of 120 stages as DVC does, before and after that installation. Fails if the parser in C is there
# at once, if it is not used afterwards, or if it is less than twice as fast.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet dvc==3.67.1 ruamel.yaml==0.19.1
cat > look.py <<'PYTHON'
import hashlib
import sys
import time
from copy import deepcopy
from importlib.metadata import version

import ruamel.yaml
from dvc.utils.serialize import dump_yaml, load_yaml

file = {"hash": "md5", "md5": "0" * 32, "size": 1}
stage = {
    "cmd": "python work.py",
    "deps": [{"path": f"in{n}", **file} for n in range(8)],
    "params": {"params.yaml": {f"section{n}.rate": 0.5 for n in range(12)}},
    "outs": [{"path": f"out{n}", **file} for n in range(3)],
}
dump_yaml("dvc.lock", {"schema": "2.0", "stages": {f"stage{n}": deepcopy(stage) for n in range(120)}})
times = []
for _ in range(5):
    start = time.perf_counter()
    content = load_yaml("dvc.lock")
    times.append(time.perf_counter() - start)
digest = hashlib.sha256(repr(content).encode()).hexdigest()[:12]
said = f"dvc {version('dvc')}, ruamel.yaml {version('ruamel.yaml')}: C parser {ruamel.yaml.__with_libyaml__}"
print(f"{said}, {min(times):.2f} s, content {digest}", file=sys.stderr)
print(ruamel.yaml.__with_libyaml__, min(times), digest)
PYTHON
read -r there slow before < <(env/bin/python look.py)
env/bin/pip install --quiet ruamel.yaml.clib==0.2.15
read -r later fast after < <(env/bin/python look.py)
[ "$there $later $before" = "False True $after" ]
env/bin/python -c "import sys; assert float(sys.argv[1]) > 2 * float(sys.argv[2])" "$slow" "$fast"
