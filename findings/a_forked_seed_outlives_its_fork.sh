#!/usr/bin/env bash
# Package: torch 2.13.0 (torch.random.fork_rng, torch.manual_seed).
#
# torch.random.fork_rng(devices=[]) restores the CPU's generator at its end, but not what
# torch.manual_seed has left for devices that have not started: until CUDA is first used, the last
# seed of the process waits for it, and that is the seed from inside the fork. A program that is
# seeded, evaluates something under a fork with a seed of its own, and uses the GPU afterwards draws
# there from the fork's seed, while the CPU goes on with the program's.
#
# Until a device starts, each call of torch.manual_seed also writes down the Python stack as text,
# once for each kind of device (CUDA, XPU, MTIA). It takes longer the deeper the stack is: 0.10 ms
# in a script and 0.44 ms in a test of pytest were seen with torch 2.14.1, where
# torch.default_generator.manual_seed, which seeds the CPU alone and leaves nothing behind, takes
# 0.001 ms.
#
# Seen on 2026-11-30, on a machine without a GPU:
#   the CPU goes on as if nothing had been: True
#   seed that waits for CUDA after the fork: 5, the program's is 1
#   after a seed of the CPU's generator in a fork: 1
#   stacks written down in one call of torch.manual_seed: 3
#
# Exits with 1 if the program's seed waits for CUDA, or no stack is written down.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import inspect
import sys
import traceback

import torch


def waiting():
    """Return the seed that CUDA's generators get when CUDA starts."""
    function, _stack = torch.cuda._lazy_seed_tracker.get_calls()[-1]  # the last one wins
    return inspect.getclosurevars(function).nonlocals["seed"]


torch.manual_seed(1)
expected = torch.rand(3)
torch.manual_seed(1)
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(5)
print("the CPU goes on as if nothing had been:", torch.equal(torch.rand(3), expected))
after = waiting()
print(f"seed that waits for CUDA after the fork: {after}, the program's is 1")

torch.manual_seed(1)
with torch.random.fork_rng(devices=[]):
    torch.default_generator.manual_seed(5)
print("after a seed of the CPU's generator in a fork:", waiting())

written = []
original = traceback.format_stack
traceback.format_stack = lambda *arguments: written.append(1) or original(*arguments)
torch.manual_seed(1)
print("stacks written down in one call of torch.manual_seed:", len(written))
sys.exit(after == 1 or not written)
PYTHON
