"""The parts of the report page: front, tables, pictures, claims, audit, protocols, provenance, costs; each one gives a section.

May import: sections, view.
"""
