#!/usr/bin/env bash
# Package: torch 2.13.0 on Python 3.11 and on Python 3.12 or newer (typing.runtime_checkable).
#
# A protocol that is runtime_checkable and asks for a data member, such as a `prior`, is met by an
# nn.Module that has a submodule, a parameter or a buffer of that name on Python 3.11. On Python
# 3.12 and newer the same module does not meet it. isinstance looks members up by
# inspect.getattr_static there, and modules answer for what they register in __getattr__, which a
# static look-up leaves out. A plain attribute of the module, and methods, are found by both. So a
# library that asks by isinstance what a model of its users can do (has it a prior? does it hold a
# count of components as a buffer?) takes another branch on another Python, without an error.
#
# Seen on 2026-11-30:
#   Python 3.11: submodule True, parameter True, buffer True, attribute True
#   Python 3.13: submodule False, parameter False, buffer False, attribute True
#
# PYTHON_OLD and PYTHON_NEW name interpreters of 3.11 and of 3.12 or newer.
# Exits with 1 if the two Pythons agree, which says that the behaviour has changed.
set -euo pipefail
old="${PYTHON_OLD:-python3.11}"
new="${PYTHON_NEW:-python3.13}"
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
cat >"$room/program.py" <<'PYTHON'
import sys
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class HasPrior(Protocol):
    prior: Any


def model(kind):
    made = nn.Module()
    if kind == "submodule":
        made.prior = nn.Linear(2, 2)
    elif kind == "parameter":
        made.prior = nn.Parameter(torch.zeros(2))
    elif kind == "buffer":
        made.register_buffer("prior", torch.zeros(2))
    else:
        made.prior = 2
    assert hasattr(made, "prior")
    return made


kinds = ("submodule", "parameter", "buffer", "attribute")
found = ", ".join(f"{kind} {isinstance(model(kind), HasPrior)}" for kind in kinds)
print(f"Python {sys.version_info[0]}.{sys.version_info[1]}: {found}")
PYTHON
for python in "$old" "$new"; do
    "$python" -m venv "$room/venv-${python##*/}"
    "$room/venv-${python##*/}/bin/pip" install --quiet --disable-pip-version-check \
        torch==2.13.0 numpy==2.4.6
    "$room/venv-${python##*/}/bin/python" "$room/program.py" | tee -a "$room/seen"
done
mapfile -t lines < <(cut -d: -f2 "$room/seen")
[ "${lines[0]}" != "${lines[1]}" ]
