import hashlib
import io
import os
import threading
import zipfile

import pytest
import torch

from ddhpc.errors import InputError
from ddhpc.results import checkpoint
from tests.jobs.disks import REFUSALS, disk


def torch_bytes(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def state(value):
    return {"weights": torch.full((100,), float(value)), "step": value, "nested": {"names": ["a", "b"], "none": None}}


def test_what_is_saved_is_loaded(tmp_path):
    file = checkpoint.path(tmp_path, 3)
    checkpoint.save(file, state(1), "r")
    loaded, damaged = checkpoint.load(file, "r")
    assert file == tmp_path / "checkpoints/00003.pt"
    assert loaded["step"] == 1
    assert torch.equal(loaded["weights"], state(1)["weights"])
    assert loaded["nested"] == {"names": ["a", "b"], "none": None}
    assert damaged == []


def test_none_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "absent.pt", "r") == (None, [])


def test_the_last_two_are_kept(tmp_path):
    for value in range(4):
        checkpoint.save(tmp_path / "x.pt", state(value), "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.previous", "x.pt"]
    assert checkpoint.load(tmp_path / "x.pt", "r")[0]["step"] == 3


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def garble(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, garble, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(damage, tmp_path):
    file = tmp_path / "x.pt"
    for value in range(2):
        checkpoint.save(file, state(value), "r")
    damage(file)
    loaded, damaged = checkpoint.load(file, "r")
    assert loaded["step"] == 0
    assert damaged == [f"{file}: damaged, its checksum differs"]
    damage(tmp_path / "x.previous")
    assert checkpoint.load(file, "r")[0] is None
    assert len(checkpoint.load(file, "r")[1]) == 2


def test_a_crash_between_the_two_renames_leaves_the_one_before(tmp_path):
    file = tmp_path / "x.pt"
    checkpoint.save(file, state(0), "r")
    file.rename(tmp_path / "x.previous")
    (tmp_path / "x.part").write_bytes(b"half a checkpoi")
    assert checkpoint.load(file, "r")[0]["step"] == 0
    checkpoint.save(file, state(1), "r")
    assert checkpoint.load(file, "r")[0]["step"] == 1


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/ddhpc-evil",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    checkpoint.save(tmp_path / "x.pt", {"evil": Evil()}, "r")
    with pytest.raises(InputError, match="is of another run"):
        checkpoint.load(tmp_path / "x.pt", "r")
    assert not os.path.exists("/tmp/ddhpc-evil")


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_disk_that_takes_no_more_leaves_the_checkpoint_as_it_is(kind, tmp_path):
    with disk(kind, tmp_path / "disk") as broken:
        file = broken.path / "x.pt"
        checkpoint.save(file, state(1), "r")
        broken.fail()
        with pytest.raises(OSError, match=broken.refusal):
            checkpoint.save(file, state(2), "r")
        assert checkpoint.load(file, "r")[0]["step"] == 1
        broken.heal()
        checkpoint.save(file, state(3), "r")
        assert checkpoint.load(file, "r")[0]["step"] == 3
        assert checkpoint.load(file.with_suffix(".previous"), "r")[0]["step"] == 1


def test_looking_at_checkpoints_bears_that_they_are_being_replaced(tmp_path):
    file = checkpoint.path(tmp_path, 0)
    ended = threading.Event()

    def replace():
        while not ended.is_set():
            checkpoint.save(file, {"step": 1}, "r")

    job = threading.Thread(target=replace)
    job.start()
    try:
        assert not any(checkpoint.verify(tmp_path) for _ in range(500))
    finally:
        ended.set()
        job.join()


@pytest.mark.parametrize("run", ["another", None])
def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    file = tmp_path / "x.pt"
    checkpoint.save(file, state(1), run)
    with pytest.raises(InputError, match="x.pt: is of another run than this one; expected another --output, or --over"):
        checkpoint.load(file, "r")


@pytest.mark.parametrize("content", [b"no checkpoint", b"", torch_bytes([1, 2]), torch_bytes({"run": 3})])
def test_foreign_content_with_a_right_checksum_is_refused(content, tmp_path):
    file = tmp_path / "x.pt"
    file.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(InputError, match="x.pt: is of another run"):
        checkpoint.load(file, "r")


def test_torch_opens_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "x.pt", state(1), "r")
    opened = torch.load(tmp_path / "x.pt", weights_only=True)
    assert (opened["step"], opened["run"]) == (1, "r")
    assert torch.equal(opened["weights"], state(1)["weights"])
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert archive.testzip() is None


def test_a_damaged_checkpoint_of_the_coherent_training_is_named(tmp_path):
    file = checkpoint.path(tmp_path, 0, "coherent")
    checkpoint.save(file, state(1), "r")
    assert checkpoint.verify(tmp_path) == []
    garble(file)
    assert checkpoint.verify(tmp_path) == [f"{file}: damaged, its checksum differs"]


def test_only_checkpoints_are_removed(tmp_path):
    for phase in checkpoint.PHASES:
        for n in range(3):
            checkpoint.save(checkpoint.path(tmp_path, n, phase), state(n), "r")
            checkpoint.save(checkpoint.path(tmp_path, n, phase), state(n), "r")
    assert checkpoint.foreign(tmp_path) == ""
    checkpoint.remove_all(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


@pytest.mark.parametrize("name", ["notes.txt", "model.pt", "coherent/00000.ckpt", "sub/00000.pt"])
def test_what_is_not_ours_is_named(name, tmp_path):
    checkpoint.save(checkpoint.path(tmp_path, 0), state(0), "r")
    (tmp_path / "checkpoints" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "checkpoints" / name).write_text("mine")
    assert checkpoint.foreign(tmp_path) == "checkpoints/" + ("sub" if name.startswith("sub") else name)
    checkpoint.remove_all(tmp_path) if "coherent" not in name else None
    assert (tmp_path / "checkpoints" / name).read_text() == "mine"


def test_checkpoints_behind_a_link_are_removed_too(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "scratch")
    checkpoint.save(checkpoint.path(tmp_path / "run", 0), state(0), "r")
    checkpoint.remove_all(tmp_path / "run")
    assert list((tmp_path / "scratch").iterdir()) == []
