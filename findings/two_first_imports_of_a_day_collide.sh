#!/usr/bin/env bash
# Package: arviz 0.23.4.
#
# The first import of a day notes in a file of the user's cache that it has shown its warning. The
# note is written "atomically", to a temporary file that is then renamed, but all processes use the
# same temporary name. If two processes import arviz for the first time that day at once, the first
# to rename takes the file of the other away, and `import arviz` raises FileNotFoundError in the
# other. Two workers of pytest-xdist that collect tests with an empty cache are such a pair: the
# collection fails in one of them, about once in some tens of runs.
#
# The order of steps is forced here: while one process is between writing and renaming, another one
# imports arviz as a whole.
#
# Seen on 2026-11-30:
#   import alone in an empty cache: fine
#   import beside another first import: FileNotFoundError, .../daily_warning.tmp
#   once more in the same process: fine
#
# Exits with 1 if the second import is fine as well.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3.11 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check arviz==0.23.4 numpy==2.3.5 \
    scipy==1.16.3 xarray==2025.12.0 matplotlib==3.10.8
cat > "$room/beside.py" <<'PYTHON'
import subprocess
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
rename, between = Path.replace, sys.argv[1] == "beside"


def slow(self, target):
    if self.name == "daily_warning.tmp" and between:
        subprocess.run([sys.executable, "-W", "ignore", "-c", "import arviz"], check=True)
    return rename(self, target)


Path.replace = slow
try:
    import arviz

    print("fine")
except FileNotFoundError as error:
    print(f"FileNotFoundError, .../{Path(error.filename).name}")
    import arviz

    print("once more in the same process: fine")
    sys.exit(3)
PYTHON
printf "import alone in an empty cache: "
XDG_CACHE_HOME="$room/alone" "$room/venv/bin/python" "$room/beside.py" alone
printf "import beside another first import: "
status=0
XDG_CACHE_HOME="$room/both" "$room/venv/bin/python" "$room/beside.py" beside || status=$?
[ "$status" -eq 3 ]
