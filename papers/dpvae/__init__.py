"""Table 1 and the figures of the dpVAE paper: ``python -m papers.dpvae table1 | figures``.

Bhalodia, Lee, Elhabian (2020), dpVAEs: Fixing Sample Generation for Regularized VAEs.
"""
