"""What a run writes and what is read back: ledger, logger, checkpoints, statistics, report."""
