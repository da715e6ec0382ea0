"""What tools/docs.py writes: tables, docstrings as Markdown, charts."""
