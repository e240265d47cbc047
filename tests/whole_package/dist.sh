#!/usr/bin/env bash
# `make test-dist`: build what a release ships, and test it as users get it, away from the sources.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
export XDG_CACHE_HOME=$work/cache # kernels compile as they do for a new user

"$python" -m venv "$work/venv"
PATH=$work/venv/bin:$PATH
pip install -q build twine

echo "== Build, and check as the index does"
python -m build -q -o "$work/dist"
twine check --strict "$work"/dist/*

echo "== The tests of the source archive alone"
mkdir "$work/sdist"
tar -xzf "$work"/dist/*.tar.gz -C "$work/sdist" --strip-components=1
pip install -q -e "$work/sdist[test]"
(cd "$work/sdist" && python -m pytest -q -n auto --maxprocesses 8 "$@")
pip uninstall -q -y eplb-np

echo "== The same tests on the installed wheel, where no source of the package is"
pip install -q "$work"/dist/*.whl
rm -r "$work/sdist/eplb_np"
cd "$work/sdist"
python -c 'import eplb_np; assert "site-packages" in eplb_np.__file__, eplb_np.__file__'
python -m pytest -q -n auto --maxprocesses 8 tests docs README.md "$@"

echo "== Types from outside"
cp tests/whole_package/typed_consumer.py "$work"
cd "$work"
mypy --strict typed_consumer.py
if pip install -q basedpyright; then
    basedpyright --level error typed_consumer.py
    # The command is no library; its options have types that only click can spell.
    { basedpyright --verifytypes eplb_np --ignoreexternal --outputjson || true; } | python -c '
import json, sys
symbols = json.load(sys.stdin)["typeCompleteness"]["symbols"]
found = [s["name"] for s in symbols if s["isExported"] and not s["isTypeKnown"]]
unknown = [name for name in found if not name.startswith("eplb_np.cli.")]
sys.exit("types are unknown of " + ", ".join(unknown) if unknown else None)'
else
    echo "pyright was not run: basedpyright cannot be installed here"
fi
