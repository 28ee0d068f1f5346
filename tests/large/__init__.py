"""Models that are larger than what may be held in memory."""
