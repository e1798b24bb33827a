"""What lies on disk: artifacts, whole or not at all, checked and owned; and the files in them: JSON lines, whole files, checksums.

May import: job.
"""
