"""Generative models behind one contract, as state encoders and world models. The families arrive one by one."""
