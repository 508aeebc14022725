#!/usr/bin/env bash
# DVC 3.67.1: dvc.lock is emptied before it is written anew, so that a run that is killed meanwhile cannot go on.
#
# Guess: what DVC needs to go on, it writes to another file and renames, as it does with what it caches.
#
# Seen: at the end of every stage dvc.lock is opened for writing and filled by ruamel.yaml's round trip, which takes
# longer the more stages there are. A reader finds it empty for some of that time. A run that is killed then
# (memory ran out, the batch system's limit) leaves it empty, and `dvc repro` and `dvc status` stop at a validation
# error; the work is not lost, as the run-cache knows it: without dvc.lock, DVC skips what was done.
#
# A pipeline of 100 stages that only print; one more is added while another process looks at dvc.lock's size. Then what
# DVC says of an empty dvc.lock, and how many stages it runs without one. Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet dvc==3.67.1 ruamel.yaml==0.19.1
export DVC_NO_ANALYTICS=1 PATH="$folder/env/bin:$PATH"
mkdir study && cd study
dvc init --quiet --no-scm
echo "names: [$(seq -s, 100)]" > params.yaml
cat > dvc.yaml <<'YAML'
stages:
  each:
    foreach: ${names}
    do:
      cmd: echo ${item} > out${item}
      deps:
      - params.yaml
      outs:
      - out${item}
YAML
dvc --version
dvc repro --quiet
size=$(stat -c %s dvc.lock)
sed -i 's/100\]/100,101]/' params.yaml
dvc repro --quiet --single-item each@101 &
least=$size
while kill -0 $! 2> /dev/null; do
    now=$(stat -c %s dvc.lock)
    least=$((now < least ? now : least))
done
wait
echo "dvc.lock: $size bytes, while a stage ended: $least"
test "$least" -eq 0
: > dvc.lock
told=$(dvc status 2>&1 || true)
echo "of an empty one: $(echo "$told" | head -1)"
grep -q "dvc.lock' validation failed" <<< "$told"
rm dvc.lock
sed -i 's/,101\]/]/' params.yaml
skipped=$(dvc repro 2>&1 | grep -c "is cached - skipping run")
echo "without one: $skipped of 100 stages are not run again"
test "$skipped" -eq 100
