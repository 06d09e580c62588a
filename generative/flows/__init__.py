"""Normalizing flows: invertible transformations of data to Gaussian noise, with exact densities."""
