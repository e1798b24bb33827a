"""How a report looks: Markdown, LaTeX, HTML, CSV, JSON, the terminal, pictures, and one page of everything.

May import: audit, cells, claims, counts, latents, measurements, published, statistics.
"""
