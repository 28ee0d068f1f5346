"""Which modules of a class became what: how a folded state dict finds its way back into a fresh network."""
