"""A latent explorer as a part of the report, and as a folder of its own: which latents and items, their pages, the files.

May import: sections.
"""
