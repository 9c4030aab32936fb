#!/usr/bin/env bash
# Package: torch 2.13.0 (torch.fx.experimental.proxy_tensor.make_fx, tracing_mode="real").
#
# make_fx notes the shape of every result on a fake tensor. It looks for a FakeTensorMode in the
# current tracing context. Where there is none, as in a plain call of make_fx, it makes a new mode
# for *every operation*, and each new mode takes down the whole stack of calls, so that tracing
# costs the more the deeper the caller is. With one FakeTensorMode in the context for the whole
# trace, the graph is the same, and tracing takes a third to a half of the time. No option of make_fx
# says so. A training step of a VAE with a thousand operations pays seconds for it.
#
# Seen on 2026-11-29:
#   the graphs are equal: True
#   processor time of a plain trace over one with a mode at hand: 2.9
#
# Exits with 1 if the ratio is below 1.2, which says that the behaviour has changed.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import statistics
import sys
import time
from contextlib import nullcontext

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

torch.set_num_threads(1)


def step(x, weight):
    for _ in range(150):
        x = torch.tanh(x @ weight) + 0.1 * x
    return x


def deep(depth, *args):
    """Call the step from as deep a stack as programs with handlers have."""
    return step(*args) if depth == 0 else deep(depth - 1, *args)


def trace(with_mode):
    context = tracing(TracingContext(FakeTensorMode())) if with_mode else nullcontext()
    start = time.process_time()
    with context:
        graph = make_fx(lambda *args: deep(60, *args))(torch.randn(8, 8), torch.randn(8, 8))
    return time.process_time() - start, graph


trace(True), trace(False)  # what is imported and cached once
pairs = [(trace(False), trace(True)) for _ in range(7)]
same = all(plain[1].code == at_hand[1].code for plain, at_hand in pairs)
ratio = statistics.median(plain[0] / at_hand[0] for plain, at_hand in pairs)
print("the graphs are equal:", same)
print(f"processor time of a plain trace over one with a mode at hand: {ratio:.1f}")
sys.exit(not same or ratio < 1.2)
PYTHON
