"""A report on a terminal, short or whole, in the width that there is; text is cleaned, broken and shortened between words.

May import: view.
"""
