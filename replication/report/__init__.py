"""From artifacts and published numbers to tables with verdicts.

May import: data_folders, drawing, frozen, recipes, settings, terminal.
"""
