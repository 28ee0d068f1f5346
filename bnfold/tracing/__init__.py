"""PyTorch networks traced with nothing folded."""
