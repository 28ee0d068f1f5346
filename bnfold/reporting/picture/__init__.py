"""What a report draws: the graphs before and after, what became of every operator, and of its weights."""
