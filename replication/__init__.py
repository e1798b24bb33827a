"""Decides and shows: experiments, plans, launchers, tables, verdicts. Imports no torch."""
