"""Worlds that are seen as small frames: batched in torch, drawn with anti-aliasing, with the true state beside each frame."""
