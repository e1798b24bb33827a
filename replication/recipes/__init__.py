"""From what a user asks for to the jobs that it needs. Shared work is one equal job.

May import: data_folders, frozen, lock_files, settings, usage_problems.
"""
