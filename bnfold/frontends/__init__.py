"""From native models to the solver's graph and back, one module per model format."""
