"""Writing a file leaves what it is: a link a link, a private file private, a device a device."""

import os
import stat
from pathlib import Path

import pytest

from optselect.files import write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "plan.json", "new")

    assert (tmp_path / "a" / "b" / "plan.json").read_text() == "new"


@pytest.mark.parametrize("chain", [1, 3])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_one_and_what_it_points_to_is_written(
    chain: int, there: bool, relative: bool, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / "shared.json"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    links = [tmp_path / f"link{number}" for number in range(chain)]
    for link, to in zip(links, [*links[1:], target], strict=True):
        link.symlink_to(os.path.relpath(to, link.parent) if relative else to)

    write_whole(links[0], "new")

    assert all(link.is_symlink() for link in links)
    assert target.read_text() == "new"
    assert [each.name for each in target.parent.iterdir()] == ["shared.json"]


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o444, 0o660])
def test_a_file_keeps_its_mode(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "private.json"
    path.write_text("old")
    path.chmod(bits)

    write_whole(path, "new")

    assert (mode(path), path.read_text()) == (bits, "new")


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "private.json"
    path.write_text("old")
    path.chmod(0o600)
    seen: list[int] = []
    replace = Path.replace

    def looking(self: Path, target: Path) -> Path:
        seen.append(mode(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", looking)
    write_whole(path, "new")

    assert seen == [0o600]


def test_a_device_is_written_to_and_stays_one() -> None:
    write_whole("/dev/null", "gone")

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)

    write_whole(path, "new")

    assert path.read_text() == "new"
