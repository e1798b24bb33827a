"""Files of clusters: how memory is asked for, and options that would contradict what a script says itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_believe_jobs import CountConfig
from slurm_samples import SMALL, chain_text

from replication.data_folders import slurm_folder
from replication.settings.clusters import MEMORY, PERSONAL, WRITTEN, Cluster, load_cluster
from replication.usage_problems import UsageProblems
from sarm.job import Job, Resources

OFFERED = ("exclusive", "exclude=node[1-3]", "comment='a -b c'", "mem-bind=local", "hint=nomultithread", "licenses=x@y:2", "nice=100")
ASKING_TWICE = ("--mem=0", "--mem 4G", "--mem-per-cpu=4G", "--mem-per-gpu=64G", "--exclusive --mem=0", "--mem-per-g=1G")


def written(folder: Path, *, options: list[str], flags: str = "") -> str:
    path = folder / "mine.toml"
    text = (slurm_folder() / "clusters" / "a100.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("\n[environment]", f"\n{flags}\noptions = {options!r}\n\n[environment]"), encoding="utf-8")
    return str(path)


def refused(folder: Path, *options: str, flags: str = "") -> str:
    with pytest.raises(UsageProblems) as caught:
        load_cluster(written(folder, options=list(options), flags=flags))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{folder / 'mine.toml'}: options: {options[-1]!r}: ")
    return problem


@pytest.mark.parametrize(("flag", "lines"), [("mem", ["--mem=3G"]), ("mem-per-cpu", ["--mem-per-cpu=1536M"]), ("none", [])])
def test_memory_is_asked_for_in_the_sites_way(flag: str, lines: list[str]) -> None:
    cluster = SMALL.model_copy(update={"memory_flag": flag})
    text = chain_text([Job(CountConfig(), resources=Resources(hours=1, memory_gb=3, gpus=1))], cluster)
    assert [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH --mem")] == lines


@pytest.mark.parametrize("flag", ["mem", "mem-per-cpu"])
@pytest.mark.parametrize("option", ASKING_TWICE)
def test_memory_that_is_asked_for_twice_is_told_when_the_file_is_read(tmp_path: Path, flag: str, option: str) -> None:
    told = refused(tmp_path, "--exclusive", option, flags=f'memory_flag = "{flag}"')
    assert f"memory_flag = '{flag}' asks for memory already; set memory_flag = 'none'" in told
    assert load_cluster(written(tmp_path, options=[option], flags='memory_flag = "none"')).options == (option,)


def test_gres_beside_gpus_that_are_gres_would_lose_them(tmp_path: Path) -> None:
    assert "forget the GPUs" in refused(tmp_path, "--gres=lscratch:100")
    other = written(tmp_path, options=["--gres=lscratch:100"])
    Path(other).write_text(Path(other).read_text().replace('gpu_flag = "gres"', 'gpu_flag = "gpus-per-node"'))
    assert load_cluster(other).options == ("--gres=lscratch:100",)


@pytest.mark.parametrize(("option", "step"), [
    ("--gpus=4", "gpu_flag"), ("--time=1:00", "set max_hours"), ("--no-requeue", "set requeue"), ("--const=gpu80", "set constraint"),
    ("--output=x", "leave it out"), ("--export=NONE", "leave it out"), ("--ntasks 4", "set resources.<kind>.nodes"),
])  # fmt: skip
def test_what_every_script_says_itself_is_named_with_its_field(tmp_path: Path, option: str, step: str) -> None:
    assert step in refused(tmp_path, option)


@pytest.mark.parametrize("option", ["-A me", "--exclusive -A me", "exclusive", "--exclusive\n#SBATCH --account=me", "--comment='half"])
def test_options_are_long_ones_on_one_line(tmp_path: Path, option: str) -> None:
    path = Path(written(tmp_path, options=["--exclusive"]))
    path.write_text(path.read_text().replace("['--exclusive']", f'["""{option}"""]'))
    with pytest.raises(UsageProblems, match="options: "):
        load_cluster(str(path))


@given(
    option=st.sampled_from(OFFERED),
    other=st.sampled_from([*MEMORY, *PERSONAL, *WRITTEN]),
    first=st.booleans(),
    joined=st.sampled_from("= "),
)
def test_no_neighbour_hides_a_conflict(option: str, other: str, first: bool, joined: str) -> None:
    words = [f"--{option}", f"--{other}{joined}1"]
    with pytest.raises(ValueError, match="options"):
        Cluster.model_validate({**SMALL.model_dump(), "options": [" ".join(words if first else words[::-1])]})
    assert Cluster.model_validate({**SMALL.model_dump(), "options": [f"--{option}"]}).options == (f"--{option}",)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000, "\x00", "nan nan", "inf", "nan", "1e400"])
def test_a_value_that_toml_cannot_hold_is_refused_by_the_file(tmp_path: Path, value: str) -> None:
    (tmp_path / "mine.toml").write_text(f"gpu_flag = {value}\n", encoding="utf-8")
    with pytest.raises(UsageProblems, match=r"mine\.toml: not a TOML file"):
        load_cluster(str(tmp_path / "mine.toml"))
