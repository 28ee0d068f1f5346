"""The straight line from a file to a report, and the public functions that are prefixes of it."""
