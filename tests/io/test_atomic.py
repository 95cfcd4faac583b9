"""Files are whole or not there; places that cannot be written are named."""

import errno
import os

import pytest

from bayesref._checks import InputError
from bayesref.io.atomic import atomic_path, output_error, prepare_output


def test_atomic_path_replaces_only_when_all_went_well(tmp_path):
    target = tmp_path / "merged.mtz"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mtz"
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half" * (1 // 0))
    assert target.read_text() == "first"
    assert os.listdir(tmp_path) == ["merged.mtz"]


def test_atomic_path_keeps_the_usual_permissions(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_failed_writes_are_explained(tmp_path, monkeypatch):
    with (
        pytest.raises(InputError, match="does not exist; make it first"),
        atomic_path(tmp_path / "no" / "a.txt"),
    ):
        pass
    with pytest.raises(InputError, match="the disk is full"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    # gemmi's RuntimeError is passed on, unless the disk is full
    with pytest.raises(RuntimeError, match="odd"), atomic_path(tmp_path / "a.txt"):
        raise RuntimeError("odd")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 0}))
    with pytest.raises(InputError, match="the disk is full"), atomic_path(tmp_path / "a.txt"):
        raise RuntimeError("Writing failed")
    assert os.listdir(tmp_path) == []
    assert "choose a place you may write to" in str(output_error(tmp_path, OSError(errno.EROFS, "read-only")))


def test_what_is_no_file_is_never_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a directory"), ("pipe", "no ordinary file")):
        with pytest.raises(InputError, match=f"{name} is {kind}"), atomic_path(tmp_path / name):
            pytest.fail("nothing may be written")
    assert (tmp_path / "pipe").is_fifo()


def test_prepare_output(tmp_path):
    new = prepare_output(tmp_path / "deep" / "results")
    assert new.is_dir()
    assert prepare_output(new) == new  # empty: nothing to lose
    (new / "merged_0.mtz").touch()
    with pytest.raises(InputError, match=r"results holds files already; .* give --overwrite"):
        prepare_output(new)
    prepare_output(new, overwrite=True)
    assert os.listdir(new) == ["merged_0.mtz"]
    with pytest.raises(InputError, match=r"merged_0\.mtz is a file; give a directory"):
        prepare_output(new / "merged_0.mtz")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        prepare_output(new / "merged_0.mtz" / "below")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a place that nobody may write to")
def test_unwritable_output():
    with pytest.raises(InputError, match=r"cannot be written"):
        prepare_output("/proc/self/results")
