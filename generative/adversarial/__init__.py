"""Adversarial models: a generator against a discriminator or a critic."""
