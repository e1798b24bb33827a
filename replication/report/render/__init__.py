"""How a report looks: Markdown, LaTeX, HTML, CSV, JSON, and the terminal.

May import: audit, cells, claims.
"""
