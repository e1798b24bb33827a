"""Everything that can change a number: one frozen model for each kind of job, in files that stand as the rooms of `jobs/` do.

May import: job.
"""
