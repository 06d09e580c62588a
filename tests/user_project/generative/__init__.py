"""The user's own `generative`."""
