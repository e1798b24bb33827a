"""What latents stand for and do: contexts, explanations, planted truth, contributions to rewards and what an edit changes.

May import: config, data, job, judges, metrics.
"""
