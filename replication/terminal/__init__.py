"""Text and columns laid into the width of a terminal or a pipe: cleaned, broken and shortened between words.

May import: nothing beside it.
"""
