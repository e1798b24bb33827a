"""What can be chosen, as data: experiments, profiles, protocols, judges, clusters, and where each value comes from.

May import: data_folders, frozen, usage_problems.
"""
