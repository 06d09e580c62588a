"""Autoencoders: linear, non-linear, denoising, variational, and the β-VAE."""
