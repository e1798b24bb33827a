"""`replicate`: the commands, their options, and what a user sees while jobs run.

May import: data_folders, frozen, hub_fetch, launch, lock_files, own_profile, pipeline, plan, recipes, report, settings, terminal, usage_problems.
"""  # noqa: E501 - what may be imported is one line
