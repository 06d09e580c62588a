"""Incremental against uncached sampling: in each file CASES, name → function that gives (cached, uncached) seconds."""
