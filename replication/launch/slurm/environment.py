"""What of our environment Slurm's commands may see: what leads to the controller and what the user asks of sbatch, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

# What an allocation sets comes along when one submits from inside it, and sbatch hands it on to the job: memory that excludes the
# job's own, ids, counts of restarts. Kept are the names that lead to a controller, and those that sites give their installation.
KEPT = frozenset({
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS",
    "SLURM_BIN", "SLURM_DIR", "SLURM_HOME", "SLURM_PATH", "SLURM_PREFIX", "SLURM_ROOT",
})  # fmt: skip
KEPT_FAMILIES = ("SLURM_SACK_",)
# SBATCH_ACCOUNT and its kin are the user's way to say whose a job is. These would change what the launch itself decides: names and
# arrays by which jobs are known again, logs, warnings, and whether sbatch answers at once.
OURS = frozenset({
    "SBATCH_ARRAY_INX", "SBATCH_BATCH", "SBATCH_ERROR", "SBATCH_INPUT", "SBATCH_JOB_NAME", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE",
    "SBATCH_OUTPUT", "SBATCH_REQUEUE", "SBATCH_SIGNAL", "SBATCH_WAIT",
})  # fmt: skip
# The user's choice of what these commands show: a filter would hide jobs of ours, and what is hidden is submitted again. The bindings are
# no input but what sbatch left in an allocation.
TASTES = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_", "SALLOC_", "SBATCH_MEM_BIND", "SBATCH_CPU_BIND")


def for_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what belongs to another job, or would change what is asked and answered."""
    return {name: value for name, value in environment.items() if not _foreign(name)}


def _foreign(name: str) -> bool:
    if name.startswith("SLURM_"):
        return name not in KEPT and not name.startswith(KEPT_FAMILIES)
    return name in OURS or name.startswith(TASTES)
