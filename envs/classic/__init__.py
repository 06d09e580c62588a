"""Classic control problems in torch: pure and batched, so that learning and environment compile as one graph."""
