"""World models: what an environment does next, learned from recorded episodes, to act and learn in."""
