"""Parallel linear branches that become one linear operator."""
