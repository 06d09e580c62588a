"""What deep agents share: observations as tensors, networks, returns, optimisers, collection."""
