"""Our results: from artifacts to cells, as files, read back from files, in the leaderboard.

May import: answers, cells, claims, measurements, provenance, published, statistics.
"""
