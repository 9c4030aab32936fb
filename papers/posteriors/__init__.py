"""Guides of two papers against true posteriors; the tests run the study and docs show it.

Park, Kim, Kim (2019), Variational Laplace Autoencoders; Kim, Pavlovic (2020), Recursive Inference
for Variational Autoencoders.
"""
