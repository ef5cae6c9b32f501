"""What ships: pyproject.toml lists the packages by hand, and leaves out a forgotten one without a word."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Where each source folder goes in the wheel.
FOLDERS = {"optselect": "optselect", "callbacks": "optselect/callbacks", "recipes": "optselect/recipes"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The file list of the wheel that a release makes: sources -> sdist -> wheel."""
    tree = tmp_path_factory.mktemp("tree")
    # A copy of the sources alone: an old build/lib in the checkout would find its way into the wheel.
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    # Without isolation nothing is downloaded: setuptools is in the `dev` extra for this.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", tree / "dist", tree],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_source_file_once_and_nothing_else(shipped: set[str]) -> None:
    sources = {
        f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, prefix in FOLDERS.items()
        for path in files_below(ROOT / folder)
        if path.suffix in {".py", ".css", ".json"}
        or path.name == "py.typed"
        or (folder == "recipes" and path.suffix in {".yaml", ".gz"})
    }

    assert {name for name in shipped if ".dist-info/" not in name} == sources


def test_the_wheel_carries_its_license_and_its_command(shipped: set[str]) -> None:
    about = {name.partition(".dist-info/")[2] for name in shipped}

    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= about


def files_below(folder: Path) -> list[Path]:
    """Every file by its real path: os.walk does not follow the links optselect/callbacks and /recipes."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
