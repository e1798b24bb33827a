"""Imports go down: the permitted ones are data, and any other fails. `replication` imports with torch blocked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Floors from the ground up. A module may import from lower floors, and from its own floor where the floor is not "apart".
SARM_FLOORS: tuple[tuple[str, frozenset[str]], ...] = (
    ("values", frozenset({"resources", "job", "config", "config_related", "config_text", "config_comparison", "data.preferences"})),
    # Plain arithmetic and what lies on disk.
    (
        "math and files",
        frozenset({"sae", "sparse_encoder", "sparse_rm", "reward", "steering", "scoring"})
        | {"checksums", "manifest", "archive", "verification", "staging"},
    ),
    ("products", frozenset({"sparse_products", "topk_selection", "small_moments", "kernels.active_pairs", "kernels.small_moments"})),
    ("steps", frozenset({"sae_step"})),
    ("store", frozenset({"artifacts"})),
)
GROUND = frozenset().union(*(modules for _, modules in SARM_FLOORS))
MATH = frozenset({"sae", "reward", "steering", "scoring", "sparse_products", "topk_selection", "small_moments", "sae_step"})
MATH |= {"sparse_encoder", "sparse_rm"}
# What the tower that decides may take from `sarm`: the ground floor without torch.
SHARED = frozenset(
    {
        "sarm",
        "sarm.artifacts",
        "sarm.checksums",
        "sarm.config",
        "sarm.config_related",
        "sarm.config_comparison",
        "sarm.config_text",
        "sarm.data.preferences",
        "sarm.job",
        "sarm.manifest",
        "sarm.resources",
        "sarm.scoring",
        "sarm.staging",
        "sarm.verification",
    }
)
# The process of a job: the only modules below sarm/jobs that know of jobs as such.
JOB_PROCESS = frozenset({"__init__", "__main__", "registry", "process", "ranks", "events", "measure", "tensorboard"})
# Floors of `replication`, lowest first; a module imports only from floors below it, or from its own.
REPLICATION_FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"", "data_folders", "problems", "report", "report.cells", "report.counts", "report.findings", "launch", "launch.launcher"})
    | {"report.public_text", "report.check"},
    frozenset({"settings", "profiles", "report.published", "launch.local", "report.paired_shifts", "report.steering"})
    | {"launch.torchrun"}
    | {"report.overlap", "launch.slurm_calls", "launch.slurm_records", "launch.slurm_clusters", "launch.slurm_script"}
    | {"launch.slurm_status", "sizes", "memory", "machine", "locks"},
    frozenset({"profile_files", "experiments", "protocols", "doctor", "standing"})
    | {"report.claim_file", "report.audit_references", "report.audit", "report.audit_page", "report.steering_accuracy"},
    frozenset({"choices", "report.steering_controls", "report.steering_selection"}),
    frozenset({"job_recipes", "report.steering_checks"}),
    frozenset({"recipes", "report.authors_figure"}),
    frozenset({"cost", "showing", "report.measurements", "report.score_files", "report.steering_tables", "report.paired_items"})
    | {"report.selection"},
    frozenset({"report.inputs", "report.figures", "report.statistics"}),
    frozenset({"planning", "report.results", "report.result_model", "launch.slurm_chain", "launch.slurm"})
    | {"work", "refusals", "calibration"},
    frozenset({"report.features", "report.hours", "report.stamps", "report.polarity", "report.detection", "report.related"}),
    frozenset({"report.collecting"}),
    frozenset({"report.verdict_rules", "report.cell_verdict", "report.verdicts", "report.claims"})
    | {"report.own_claims", "report.result_files", "report.result_reading"},
    frozenset({"report.claims_in_store"}),
    frozenset({"report.view", "report.tables", "report.leaderboard", "report.page"}),
    frozenset({"report.diff", "report.diff_formats"}),
    frozenset({"pipeline", "run_options"}),
    frozenset({"terminal", "plan_view", "fetch", "launch.slurm_files"}),
    frozenset({"cli_files", "cli_judgement", "cli_run", "cli_store", "launch.slurm_cli"}),
    frozenset({"cli"}),
)


def modules(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def imported(module: str) -> Iterator[str]:
    """Every absolute import of a module, also those inside functions; `from a import b` counts as a.b where that is a module."""
    base = ROOT / Path(*module.split("."))
    file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            known = set(modules("sarm")) | set(modules("replication"))
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else str(node.module)


def house(module: str) -> set[str]:
    return {name for name in imported(module) if name.partition(".")[0] in ("sarm", "replication")}


@pytest.mark.parametrize("module", modules("sarm"))
def test_sarm_never_imports_the_tower_that_decides(module: str) -> None:
    assert not [name for name in house(module) if name.startswith("replication")]


@pytest.mark.parametrize("module", modules("replication"))
def test_replication_takes_only_the_ground_floor_without_torch(module: str) -> None:
    assert {name for name in house(module) if name.startswith("sarm")} <= SHARED


@pytest.mark.parametrize("module", modules("replication"))
def test_imports_within_replication_go_down(module: str) -> None:
    floors = {name: number for number, names in enumerate(REPLICATION_FLOORS) for name in names}
    own = module.removeprefix("replication").removeprefix(".")
    assert own in floors, f"{module} has no floor: give it one in REPLICATION_FLOORS"
    upward = [name for name in house(module) if name.startswith("replication.") and floors[name.removeprefix("replication.")] > floors[own]]
    assert not upward


@pytest.mark.parametrize("module", sorted(f"sarm.{name}" for name in GROUND))
def test_the_ground_floor_rests_on_nothing_above_it(module: str) -> None:
    allowed: set[str] = {"sarm"}
    for _, names in SARM_FLOORS:
        allowed |= {f"sarm.{name}" for name in names}
        if module.removeprefix("sarm.") in names:
            break
    assert house(module) <= allowed


@pytest.mark.parametrize("module", sorted(f"sarm.{name}" for name in MATH))
def test_math_reads_no_config_no_files_and_no_environment(module: str) -> None:
    assert "sarm.config" not in house(module)
    assert not {"os", "pathlib", "json"} & set(imported(module))


@pytest.mark.parametrize("module", [name for name in modules("sarm") if name.startswith("sarm.jobs.")])
def test_no_job_imports_another_and_none_knows_the_store(module: str) -> None:
    name = module.removeprefix("sarm.jobs.")
    below = {one for one in house(module) if one.startswith("sarm.jobs")}
    if name in JOB_PROCESS:
        assert {one.removeprefix("sarm.jobs.") for one in below} <= JOB_PROCESS | {"sarm.jobs"}
    else:
        assert not below
        assert not {"sarm.artifacts", "sarm.staging"} & house(module)


@pytest.mark.parametrize("module", [name for name in modules("sarm") if not name.startswith("sarm.jobs")])
def test_only_jobs_stand_above_what_computes(module: str) -> None:
    assert not [name for name in house(module) if name.startswith("sarm.jobs")]


def test_only_the_engine_names_deepspeed_and_accelerate() -> None:
    naming = [module for module in modules("sarm") if {name.partition(".")[0] for name in imported(module)} & {"deepspeed", "accelerate"}]
    assert set(naming) <= {"sarm.engine_zero"}


def test_every_module_of_replication_imports_with_torch_blocked() -> None:
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import importlib\n"
        f"for name in {modules('replication')!r}: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
