"""From units to a plan: which BatchNorms fold, which stay and why."""
