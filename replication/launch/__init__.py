"""Ways to run a plan: on this machine, or through Slurm.

May import: data_folders, frozen, plan, recipes, settings, usage_problems.
"""
