"""What a command found out, as data and in every form that people read."""
