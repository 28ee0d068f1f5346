"""What runs a model: runtimes, devices, clocks."""
