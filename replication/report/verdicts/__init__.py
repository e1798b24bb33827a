"""Verdicts: the rule for a cell, a whole report, and the diff against a reference.

May import: audit, cells, counts, provenance, published, render, results, statistics.
"""
