"""What a model means in real arithmetic, as near as float64 comes to it. Its modules import torch; import them late."""
