"""The options of each command, apart from what it does.

Parsers need no PyTorch, but for that of ``dpvae train``, whose options are arguments of the parts:
so help and refusals appear at once.
"""
