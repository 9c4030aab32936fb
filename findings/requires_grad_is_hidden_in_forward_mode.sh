#!/usr/bin/env bash
# Package: torch 2.13.0 (torch.func.jvp, jacfwd, vmap).
#
# A function that asks its tensors whether they require a gradient is told False inside
# torch.func.jvp, jacfwd and vmap, also if they depend on a parameter and backward follows: the
# wrapped tensor answers for its own level alone. Afterwards the results do require a gradient, and
# it is right. Inside vjp and jacrev the answer is True. So code that computes in a cheaper way, or
# overwrites its memory, "where no gradient is needed" is wrong under nested derivatives, such as a
# loss of a Jacobian. torch.is_grad_enabled() is True in all of them and can be asked instead.
#
# Seen on 2026-11-30:
#   a plain call: the tensor requires a gradient: True
#   jvp: False, then True, gradient [-2.0, 1.0, 4.0]
#   jacfwd: False, then True, gradient [-2.0, 1.0, 4.0]
#   vmap: False, then True, gradient [1.0, 0.25, 4.0]
#   jacrev: True, then True, gradient [-2.0, 1.0, 4.0]
#   gradients are enabled in all of them: True
#
# Exits with 1 if a tensor inside jvp, jacfwd or vmap says that it requires a gradient.
set -euo pipefail
room="$(mktemp -d)"
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import sys

import torch

weight = torch.full((3,), 0.5, requires_grad=True)
x = torch.tensor([-1.0, 0.5, 2.0])
inside, enabled = [], []


def square(x):
    y = weight * x
    inside.append(y.requires_grad)
    enabled.append(torch.is_grad_enabled())
    return y * y


square(x)
print("a plain call: the tensor requires a gradient:", inside[-1])
programs = {
    "jvp": lambda: torch.func.jvp(square, (x,), (torch.ones(3),))[1],
    "jacfwd": lambda: torch.func.jacfwd(square)(x),
    "vmap": lambda: torch.func.vmap(square)(x.unsqueeze(0)),
    "jacrev": lambda: torch.func.jacrev(square)(x),
}
answers = {}
for name, program in programs.items():
    result = program()
    answers[name] = inside[-1]
    gradient = torch.autograd.grad(result.sum(), weight)[0].tolist()
    print(f"{name}: {inside[-1]}, then {result.requires_grad}, gradient {gradient}")
print("gradients are enabled in all of them:", all(enabled))
sys.exit(any(answers[name] for name in ("jvp", "jacfwd", "vmap")))
PYTHON
