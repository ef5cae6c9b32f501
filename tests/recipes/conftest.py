"""The command line in a folder of its own."""

import json
from pathlib import Path

import pytest

from optselect.recipes.cli.commands import main
from tests.support.tiny import TINY, Done, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder of its own that holds `tiny.yaml`."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(TINY))

    def command(*arguments: str) -> Done:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return command


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `optselect tune` has run."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["tune", "--config", "tiny.yaml"]) == 0
    return folder
