"""The options that commands share: how each is declared, grouped for --help, and the judges' endpoint that they name.

May import: nothing beside it.
"""
