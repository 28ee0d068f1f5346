"""What goes into a model: arrays, batches, data sets."""
