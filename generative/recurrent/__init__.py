"""Recurrent latent variable models of sequences."""
