"""The house as data: rooms, their floors, and what may never meet. Any other import fails, late and type-only ones too."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping

import pytest
from folders import ROOT
from rooms import imported, imports, level, levels, modules

import sarm

# The rooms of each folder that holds other rooms, from the ground up. A room imports only from the floors below its own,
# and of these only what the docstring of its `__init__.py` says. Files of a room that holds no other import each other without a circle.
FLOORS: Mapping[str, tuple[str, ...]] = {
    "sarm": (
        "job",
        "config store",
        "data engine",
        "backbone judges metrics sae",
        "explain reward",
        "checkpoints scoring",
        "api demo jobs",
    ),
    "sarm.data": (
        "chat_templates columns notebook prefetch template_process turn_ends",
        "preferences",
        "miniature sources splitters states tokens",
        "harness pairs row_files sentences",
    ),
    "sarm.sae": (
        "kernels model topk_selection",
        "kernel_choice sparse_encoder",
        "small_moments sparse_products",
        "step",
        "pair_updates",
        "update",
        "zero",
    ),
    "sarm.judges": (
        "grammar loopback prompts questions",
        "completions recorded refusals settings verdicts",
        "connection spending",
        "answers endpoint",
        "concurrent_questions",
    ),
    "sarm.checkpoints": (
        "hub quantized settings_keys spread tensors",
        "config_files leftovers loading sarm_geometry",
        "backbones saes",
        "reward_models",
    ),
    "sarm.jobs": ("data latents process related score survey train weights", "__main__"),
    "replication": (
        "data_folders drawing frozen terminal usage_problems",
        "lock_files settings",
        "own_profile recipes",
        "plan report",
        "launch",
        "hub_fetch pipeline",
        "cli",
    ),
    "replication.cli": (
        "doctor options row_files",
        "demo item_diff running slurm",
        "explore fetch files judgement",
        "init report_page store",
        "app",
        "__main__",
    ),
    "replication.launch": ("interface torchrun", "local slurm", "status"),
    "replication.report": (
        "answers cells counts statistics",
        "agreement measurements provenance published",
        "audit latents steering",
        "claims",
        "render results",
        "collecting verdicts",
    ),
    "replication.report.render": (
        "pictures sections view",
        "explorer parts tables terminal",
        "page",
    ),
}
# What the tower that decides may take from `sarm`: whole rooms without torch, and the shape of comparison data.
SHARED = (
    *("sarm", "sarm.job", "sarm.config.", "sarm.store.", "sarm.metrics.", "sarm.data.preferences"),
    "sarm.judges.loopback",
    "sarm.judges.settings",
    # What a context of the miniature carries: the report measures by the labels that the planted judge reads.
    *("sarm.explain.contexts", "sarm.explain.planted"),
)
# (who, whom, why): neither a module that begins with the first may import one that begins with the second.
NEVER: tuple[tuple[str, str, str], ...] = (
    ("sarm", "replication", "what computes does not know what decides"),
    ("replication", "sarm.jobs", "the towers meet in request files and artifacts"),
    ("replication", "torch", "what decides answers at once, on a login node"),
    ("replication", "transformers", "what decides answers at once, on a login node"),
    ("sarm.metrics", "torch", "metrics are shared by both towers"),
    ("sarm.config", "torch", "configs are shared by both towers"),
    ("sarm.store", "torch", "the store is shared by both towers"),
    *(
        (f"sarm.jobs.{room}", f"sarm.store.{file}", "a job knows no store, only files")
        for room in ("data", "latents", "related", "score", "train", "weights")
        for file in ("artifacts", "staging", "manifest", "verification", "archive")
    ),
)
# Tensors and numbers in, tensors and numbers out: no config, no file, no environment.
MATH = (
    *("sarm.sae.model", "sarm.sae.step", "sarm.sae.sparse_encoder", "sarm.sae.sparse_products", "sarm.sae.topk_selection"),
    *("sarm.sae.small_moments", "sarm.reward.losses", "sarm.reward.steering", "sarm.reward.sparse_rm"),
    *("sarm.judges.verdicts", "sarm.judges.prompts", "sarm.judges.grammar.", "sarm.metrics."),
)
# The one module that imports from above itself: names for Python users, in a map, loaded when they are asked for, and shown to type
# checkers under TYPE_CHECKING. Nothing inside the two packages may import through it.
FACE = "sarm"
# Libraries that one room may name.
OWNED = {"deepspeed": ("sarm.engine.",), "accelerate": ("sarm.checkpoints.",)}
MOST_ROOMS = 16
GRAPH = imports(ROOT)
FILES = modules(ROOT)


def begins(module: str, prefixes: Iterable[str]) -> bool:
    """Whether a module is one of these, or inside one that is written with a dot at its end."""
    return any(module == prefix or (prefix.endswith(".") and module.startswith(prefix)) for prefix in prefixes)


def everything(module: str) -> set[str]:
    """All that a module imports, the world's packages too."""
    return set(imported(FILES[module], FILES))


@pytest.mark.parametrize("name", FLOORS)
def test_rooms_stand_on_their_floors(name: str) -> None:
    found = level(name, GRAPH)
    floors = {room: number for number, rooms in enumerate(FLOORS[name]) for room in rooms.split()}
    assert found.rooms == floors.keys(), f"give each room of {name} a floor in FLOORS"
    assert not [f"{one} -> {other}" for one, other in sorted(found.arrows) if floors[one] <= floors[other]]


@pytest.mark.parametrize("found", levels(ROOT), ids=lambda found: found.name)
def test_a_level_has_no_circle_and_few_rooms(found: object) -> None:
    assert not found.circle and len(found.rooms) <= MOST_ROOMS  # type: ignore[attr-defined]
    assert len(found.rooms) > 1, "a folder of a single file"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.name == "__init__.py" and "." in name])
def test_a_room_says_in_its_docstring_what_it_may_import_and_imports_no_more(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(FILES[name].read_text(encoding="utf-8"))) or ""
    first, _, rest = docstring.partition("\n")
    said = re.fullmatch(r"\nMay import: ([a-z_, ]+)\.(?:\n.*)?", rest, re.DOTALL)
    assert first.endswith(".") and said, f"{name}: one line on what lives here, a blank one, and 'May import: a, b.'"
    may = set() if said[1] == "nothing beside it" else set(said[1].split(", "))
    above, _, own = name.rpartition(".")
    found = {other for one, other in level(above, GRAPH).arrows if one == own}
    assert found == may, f"{name} imports {sorted(found)} of {above} and says {sorted(may)}"


@pytest.mark.parametrize("module", [name for name in FILES if name != "sarm.checkpoints.saes.sae_lens"])
def test_files_do_not_repeat_the_name_of_their_folder(module: str) -> None:
    folder, _, name = module.rpartition(".")
    assert name.partition("_")[0] != folder.rpartition(".")[2].removesuffix("s")


@pytest.mark.parametrize(("who", "whom", "why"), NEVER)
def test_what_may_never_meet(who: str, whom: str, why: str) -> None:
    meeting = {
        module: name
        for module in FILES
        if begins(module, (who, f"{who}."))
        for name in everything(module)
        if begins(name, (whom, f"{whom}."))
    }
    assert not meeting, why


@pytest.mark.parametrize("module", [name for name in FILES if begins(name, ("replication.",))])
def test_replication_takes_only_what_is_shared(module: str) -> None:
    assert not [name for name in GRAPH[module] if begins(name, ("sarm", "sarm.")) and not begins(name, SHARED)]


@pytest.mark.parametrize("module", [name for name in FILES if begins(name, MATH)])
def test_math_reads_no_config_no_files_and_no_environment(module: str) -> None:
    assert not [name for name in everything(module) if begins(name, ("os", "pathlib", "json", "sarm.config", "sarm.config."))]


@pytest.mark.parametrize("library", OWNED)
def test_a_library_is_named_in_its_room_alone(library: str) -> None:
    naming = [module for module in FILES if any(begins(name, (library, f"{library}.")) for name in everything(module))]
    assert all(begins(module, OWNED[library]) for module in naming)


def type_only(module: str) -> dict[str, str]:
    """What a module imports under TYPE_CHECKING: name -> module. Each name is exported again (`import a as a`)."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and all(alias.asname == alias.name for alias in node.names)
        found.update({alias.name: str(node.module) for alias in node.names})
    return found


def test_the_face_shows_type_checkers_what_it_loads_and_imports_nothing_else_of_the_house() -> None:
    assert type_only(FACE) == dict(sarm.FACE)
    assert GRAPH[FACE] == set(sarm.FACE.values())
    rooms = level("sarm", GRAPH).rooms
    assert not rooms & sarm.FACE.keys(), "a public name would hide a room"
    for name, module in sarm.FACE.items():
        assert getattr(sarm, name).__module__ == module, f"{name} is defined elsewhere; name that module"
    assert sarm.FACE.keys() <= set(dir(sarm))
    with pytest.raises(AttributeError, match="module 'sarm' has no attribute 'nothing'"):
        sarm.nothing


def test_nothing_inside_imports_through_the_face() -> None:
    through = {
        module: node.attr if isinstance(node, ast.Attribute) else node.module
        for module, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == FACE and any(f"{FACE}.{alias.name}" not in FILES for alias in node.names))
        or (isinstance(node, ast.Attribute) and ast.unparse(node.value) == FACE and node.attr in sarm.FACE)
    }
    assert not through, "import it from the module that defines it"


def test_the_face_loads_nothing_before_a_name_is_asked_for_and_torch_only_where_it_is_needed() -> None:
    code = (
        "import sys, sarm\n"
        "assert [name for name in sys.modules if name.startswith('sarm.')] == [] and 'torch' not in sys.modules\n"
        "dir(sarm)\n"
        "from sarm import Preference, UsageProblem, pairwise_scores, read_scored_preferences, rewardbench2_scores, rmbench_scores\n"
        "assert 'torch' not in sys.modules\n"
        "from sarm import load_reward_model\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_job_imports_no_other_job() -> None:
    kinds = [name for name in FILES if begins(name, ("sarm.jobs.",)) and not begins(name, ("sarm.jobs.process", "sarm.jobs.process."))]
    kinds.remove("sarm.jobs.__main__")
    assert not [(one, other) for one in kinds for other in GRAPH[one] if begins(other, ("sarm.jobs", "sarm.jobs."))]


def test_every_module_of_replication_imports_with_torch_blocked() -> None:
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import importlib\n"
        f"for name in {[name for name in FILES if begins(name, ('replication', 'replication.'))]!r}: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
