"""What computes: one file, one kind of job, one function `(config, context) -> None`. No job knows the store, a profile or a table.

May import: backbone, checkpoints, config, data, engine, explain, job, judges, metrics, reward, sae, scoring, store.
"""
