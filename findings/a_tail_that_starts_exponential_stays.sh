#!/usr/bin/env bash
# Package: torch 2.13.0 (torch.distributions.GeneralizedPareto).
#
# At a concentration of 0 the distribution is the exponential one, and every reader of the formula
# starts a fit there. The gradient of log_prob with respect to the concentration is then exactly 0,
# where z^2/2 - z is right, and so is that of rsample, where log(1 - u)^2 / 2 is right: the special
# case is put in by torch.where as a formula that does not hold the concentration at all. So a
# parameter that starts at 0 never moves, whatever the data are, while the scale is trained around
# it. The values are right, and no warning is given. The special case holds for all concentrations
# up to 1e-8 in size, and just outside of it float32 loses the gradient to cancellation.
#
# log_prob and cdf also compare the concentration with a tensor of the default type, so that
# parameters in float64 raise RuntimeError there, where icdf, sample, mean and entropy work.
#
# Whom it costs: who fits tails, as in the check of importance weights (Pareto k), in models of
# extremes or in heavy-tailed decoders. A start at 0.01 finds the tail.
#
# Seen on 2026-11-30, for draws with a concentration of 0.5:
#   gradient of log_prob at z = 3: 0.0 at 0, 4.0 at 1e-7, 1.5000 at 1e-4, right 1.5
#   gradient of one draw: 0.0, right 0.2402
#   a fit that starts at 0.0: concentration 0.000, loss 1.685
#   a fit that starts at 0.01: concentration 0.508, loss 1.472
#   log_prob in float64: RuntimeError: Double did not match Float
#
# Exits with 1 if the gradient at 0 is right.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.distributions import GeneralizedPareto

torch.set_num_threads(1)
zero, one = torch.tensor(0.0), torch.tensor(1.0)


def gradient(value, function):
    """Return the derivative of a function of the distribution in its concentration."""
    concentration = torch.tensor(value, requires_grad=True)
    result = function(GeneralizedPareto(zero, one, concentration))
    return torch.autograd.grad(result, concentration)[0].item()


z = torch.tensor(3.0)
at, near, off = (gradient(value, lambda d: d.log_prob(z)) for value in (0.0, 1e-7, 1e-4))
right = (z**2 / 2 - z).item()
print(
    f"gradient of log_prob at z = 3: {at} at 0, {near} at 1e-7, {off:.4f} at 1e-4, right {right}"
)
u = torch.tensor(0.5)
due = (torch.log1p(-u) ** 2 / 2).item()
print(f"gradient of one draw: {gradient(0.0, lambda d: d.icdf(u))}, right {due:.4f}")

torch.manual_seed(0)
data = GeneralizedPareto(zero, one, torch.tensor(0.5)).sample((5000,))
for start in (0.0, 0.01):
    concentration = torch.tensor(start, requires_grad=True)
    log_scale = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.Adam([concentration, log_scale], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        fitted = GeneralizedPareto(zero, log_scale.exp(), concentration)
        loss = -fitted.log_prob(data).mean()
        loss.backward()
        optimizer.step()
    found = concentration.item()
    print(f"a fit that starts at {start}: concentration {found:.3f}, loss {loss.item():.3f}")

precise = GeneralizedPareto(zero.double(), one.double(), torch.tensor(0.3).double())
try:
    print("log_prob in float64:", precise.log_prob(precise.sample()).item())
except RuntimeError as error:
    print("log_prob in float64: RuntimeError:", error)
sys.exit(abs(at - right) < 0.1)
PYTHON
