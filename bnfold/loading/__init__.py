"""Opens what others wrote, without running any of it."""
