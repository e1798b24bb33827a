"""What latents stand for: contexts that activate them, prompts for explanations, and planted truth to compare with.

May import: config, data, job, judges.
"""
