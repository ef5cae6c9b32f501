"""The scripts of the how-to pages do what the pages say, as far as a machine without a cluster can tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGES = Path(__file__).parents[2] / "docs" / "how-to"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for a POSIX shell")


def script_of(page: str) -> str:
    """The script of a page that is said to be tested here."""
    found = re.search(r"tests/launch/test_pages\.py .*-->\n```\w+\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which `optselect` and `srun` only say how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    told = '#!/bin/sh\necho optselect "$@" with "$OMP_NUM_THREADS" at "$OPTSELECT_AUTO__STORAGE"\n'
    for name, program in {"optselect": told, "srun": '#!/bin/sh\nexec "$@"\n'}.items():
        (programs / name).write_text(program)
        (programs / name).chmod(0o755)
    (tmp_path / ".optselect.env").write_text("export OPTSELECT_AUTO__STORAGE=postgresql://host/optuna\n")
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}


# --- Slurm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task, command", [("0", "tune"), ("1", "worker"), ("7", "worker")])
def test_the_first_task_of_the_array_writes_the_plan_and_the_others_work(
    task: str, command: str, machine: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "search.sh"
    script.write_text(script_of("slurm.md"))
    environment = {**machine, "SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "4"}

    done = subprocess.run(
        ["/bin/bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout == f"optselect {command} --config my.yaml with 4 at postgresql://host/optuna\n"


# Those of sbatch that the page uses, and what each takes.
OPTIONS = {
    "job-name": r"\w+",
    "array": r"0-\d+",
    "ntasks": "1",
    "cpus-per-task": r"\d+",
    "gpus-per-task": r"\d+",
    "time": r"\d\d:\d\d:\d\d",
    "requeue": None,
    "output": r"\S*%A\S*%a\S*",
}


def test_what_is_asked_of_slurm_stands_before_the_first_command_and_is_what_sbatch_knows() -> None:
    first, *rest = script_of("slurm.md").splitlines()

    asked = [line for line in rest if line.startswith("#SBATCH")]

    assert first == "#!/bin/bash"
    assert rest[: len(asked)] == asked
    for line in asked:
        name, has_value, value = line.removeprefix("#SBATCH --").partition("=")
        pattern = OPTIONS[name]
        assert bool(has_value) == (pattern is not None)
        assert pattern is None or re.fullmatch(pattern, value)


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    script = tmp_path / "search.sh"
    script.write_text(script_of("slurm.md"))

    # Without the file that is read: it is the user's.
    line = [str(Path(sys.executable).with_name("shellcheck")), "--exclude=SC1091", str(script)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)

    assert done.stdout == ""


# --- Kubernetes -----------------------------------------------------------------------------


@pytest.fixture
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(script_of("kubernetes.md"))
    return loaded


def test_the_job_is_one_of_as_many_pods_as_workers_which_are_begun_again(job: dict[str, Any]) -> None:
    spec = job["spec"]

    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert spec["completions"] == spec["parallelism"] > 1
    assert spec["backoffLimitPerIndex"] > 0
    # What a limit for each index asks for.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("index, command", [("0", "tune"), ("3", "worker")])
def test_the_first_pod_writes_the_plan_and_the_others_work(
    index: str, command: str, job: dict[str, Any], machine: dict[str, str], tmp_path: Path
) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    environment = {**machine, **given, "OPTSELECT_AUTO__STORAGE": "a secret's", "JOB_COMPLETION_INDEX": index}

    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout == f"optselect {command} --config my.yaml with {given['OMP_NUM_THREADS']} at a secret's\n"


def test_the_url_of_the_storage_is_a_secret_and_threads_are_as_many_as_cores(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each for each in container["env"]}

    assert set(environment["OPTSELECT_AUTO__STORAGE"]["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    assert environment["OMP_NUM_THREADS"]["value"] == container["resources"]["requests"]["cpu"]
