"""What a BatchNorm is: a change of units. The arithmetic, the graph the solver sees, the laws, the solver."""
