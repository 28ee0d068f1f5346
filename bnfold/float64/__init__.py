"""What a model means in real arithmetic, as near as float64 comes to it; imports torch, so it is itself imported late."""
