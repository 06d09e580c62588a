"""The rows of benchmarks/faults.py: what is broken, and what is counted."""
