"""Feed-forward and recurrent networks: plain modules that other families are built from, and models of a target given x."""
