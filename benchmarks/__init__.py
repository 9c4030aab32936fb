"""Benchmarks: ratios of things that run alternately in one process, on one thread."""
