"""A run, as the JSON of `--json` holds it, as a page, as Markdown, as JUnit XML, and its graph as a picture."""
