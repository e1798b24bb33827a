"""From artifacts and published numbers to tables with verdicts.

May import: data_folders, frozen, recipes, settings.
"""
