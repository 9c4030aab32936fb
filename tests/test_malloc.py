"""Freed memory that a process keeps: its next tensors need no pages from the system."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import torch
from pyro_dpvae._malloc import keep_freed_memory

if not keep_freed_memory():
    sys.exit(77)
torch.set_num_threads(1)

def large():
    return [torch.ones(1_000_000) for _ in range(16)]

for _ in range(5):
    large()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    large()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_tensors_reuse_freed_memory() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    if result.returncode == 77:
        pytest.skip("the C library is not glibc")
    assert result.returncode == 0, result.stderr
    pages = 10 * 16 * 1_000_000 * 4 // 4096  # those of all tensors
    assert int(result.stdout) < pages / 10
