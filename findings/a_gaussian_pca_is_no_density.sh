#!/usr/bin/env bash
# Package: normflows 1.7.3 (normflows.distributions.GaussianPCA), with torch 2.13.0.
#
# GaussianPCA is a base distribution for flows: loc + W'e with noise sigma, that is a Gaussian with
# the covariance S = W'W + sigma^2 I. Its log_prob is none of any distribution. It *adds*
# d/2 log(2 pi) where it has to be taken away, and takes away half of the determinant of S, not of
# its logarithm. Its draws leave sigma out, so that with fewer latent dimensions they lie in a
# subspace, where a Gaussian with noise has none of its mass.
#
# The first fault makes every log likelihood better by d log(2 pi) = 1.84 nats per dimension: 1441
# nats for an image of 28 x 28. The second one changes what is learned. Where data are spherical
# with variance c, the best variance under this "density" is c^(1/(d + 1)) and not c, which is
# sqrt(c) for one dimension and about 1 for images, whatever the data are. No error is raised.
#
# Seen on 2026-11-30, for W = (1, 0.5) and sigma = 0.5 in two dimensions:
#   log density at loc: own 1.6504, right -1.3475
#   integral of the own density: 20.04, of the right one 1.00
#   smallest variance of draws over all directions: 0.0000, right 0.2500
#   learned variance for data with variance 9: 2.08, by this formula 2.08, right 9
#
# Exits with 1 if the density integrates to 1.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check normflows==1.7.3 torch==2.13.0 \
    numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import sys

import torch
from normflows.distributions import GaussianPCA
from torch.distributions import MultivariateNormal

torch.set_num_threads(1)
torch.manual_seed(0)
base = GaussianPCA(2, latent_dim=1, sigma=0.5)
with torch.no_grad():
    base.W.copy_(torch.tensor([[1.0, 0.5]]))
covariance = torch.tensor([[1.25, 0.5], [0.5, 0.5]])
right = MultivariateNormal(torch.zeros(2), covariance)
axis = torch.linspace(-8, 8, 801)
grid = torch.cartesian_prod(axis, axis)
cell = (axis[1] - axis[0]).item() ** 2
with torch.no_grad():
    own_at_loc = base.log_prob(torch.zeros(1, 2)).item()
    integral = base.log_prob(grid).exp().sum().item() * cell
    draws = base(100_000)[0]
whole = right.log_prob(grid).exp().sum().item() * cell
print(f"log density at loc: own {own_at_loc:.4f}, right {right.log_prob(torch.zeros(2)):.4f}")
print(f"integral of the own density: {integral:.2f}, of the right one {whole:.2f}")
smallest = torch.linalg.eigvalsh(draws.T.cov())[0].abs().item()
due = torch.linalg.eigvalsh(covariance)[0].item()
print(f"smallest variance of draws over all directions: {smallest:.4f}, right {due:.4f}")

data = 3 * torch.randn(20_000, 2)
model = GaussianPCA(2, latent_dim=2)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(1500):
    optimizer.zero_grad()
    (-model.log_prob(data).mean()).backward()
    optimizer.step()
with torch.no_grad():
    learned = model.W.T @ model.W + model.log_sigma.mul(2).exp() * torch.eye(2)
print(
    f"learned variance for data with variance 9: {learned.diagonal().mean():.2f}, "
    f"by this formula {9 ** (1 / 3):.2f}, right 9"
)
sys.exit(abs(integral - 1) < 0.05)
PYTHON
