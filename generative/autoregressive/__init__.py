"""Autoregressive models: p(x) = Π_i p(x_i | x_1 … x_{i−1}), exact likelihoods (notes §6)."""
