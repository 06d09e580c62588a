"""Diffusion models: schedules, samplers, bounds and guidance as pure functions, and the models that learn the noise."""
