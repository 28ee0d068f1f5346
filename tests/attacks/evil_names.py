"""A name that acts wherever it is not made harmless, and what is left of it."""

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b1m\u202etxt\u2066[red]<b>alert</b>&"
PLAIN = "a\ufffd[2J\ufffd]0;owned\ufffd\ufffd1m\ufffdtxt\ufffd[red]<b>alert</b>&"
