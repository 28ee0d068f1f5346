"""What two models are worth on labelled data."""
