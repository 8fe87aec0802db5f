#!/usr/bin/env bash
# A stranger's plugin from wheels alone: tools/check_template.sh DIST_FOLDER VENV
#
# DIST_FOLDER holds the core's wheel, VENV an environment with that wheel installed. Makes a plugin by `ffplug new` in a
# temporary folder, builds its wheel, installs it into VENV, and from another folder trains it in one process and in two
# and estimates flow (tests/test_template.py runs its tests). Takes the plugin out of VENV again at the end.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 DIST_FOLDER VENV" >&2
    exit 2
fi
dist=$(cd "$1" && pwd)
python=$(cd "$2" && pwd)/bin/python
constraints=$(cd "$(dirname "$0")/.." && pwd)/requirements/constraints.txt
work=$(mktemp -d)
trap '"$python" -m pip uninstall --quiet --yes ffplug-stranger >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 PYTHONSAFEPATH=1
ffplug() { "$python" -m ffplug.cli "$@"; }
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

pip install --quiet -c "$constraints" --find-links "$dist" "ffplug[author]"
mkdir "$work/made here" "$work/some where else"
cd "$work/made here"
ffplug new stranger --title "Stranger's method" --author "A Stranger"
test -f ffplug-stranger/.gitignore -a -f ffplug-stranger/.github/workflows/ci.yml
"$python" -m build --outdir "$work/dist" ffplug-stranger >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
pip install --quiet --no-index --find-links "$dist" --find-links "$work/dist" --no-deps ffplug-stranger
problems=$(pip check || true)
if grep -i stranger <<<"$problems"; then exit 1; fi

cd "$work/some where else"
listed=$(ffplug list --check)
grep -A 7 '^ffplug-stranger' <<<"$listed"
if grep BROKEN <<<"$listed"; then exit 1; fi
quietly() { "$@" >"$work/run.log" 2>&1 || { cat "$work/run.log"; exit 1; }; }
check() { # WORK_DIR: metrics are finite and called procedural
    "$python" - "$1" <<'PYTHON'
import json, math, pathlib, sys

folder = pathlib.Path(sys.argv[1])
[evaluation] = json.loads((folder / "metrics.json").read_text())["evaluations"]["val"].values()
error = evaluation["summary"]["EPE"]
if not (evaluation["procedural"] and math.isfinite(error) and (folder / "weights.safetensors").is_file()):
    sys.exit(f"{folder}: {evaluation['summary']}")
sys.stdout.write(f"{folder}: EPE {error:.3f} on {evaluation['source']}\n")
PYTHON
}
quietly ffplug train stranger_pairs
check work_dirs/stranger_pairs
quietly "$python" -m torch.distributed.run --standalone --nproc-per-node=2 -m ffplug.cli train stranger_pairs \
    --launcher pytorch --work-dir "two processes"
check "two processes"
frames=data/stranger-procedural/val/000000
quietly ffplug infer $frames/frame1.png $frames/frame2.png --model work_dirs/stranger_pairs --out flow.flo
test -s flow.flo
