"""Capture of programs: record a function of tensors once, and replay it without its Python."""
