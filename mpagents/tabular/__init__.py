"""Finite Markov decision processes: the model, Bellman operators, planners and compiled simulation."""
