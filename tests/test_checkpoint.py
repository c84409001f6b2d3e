import os
import pickle
import threading

import pytest
import torch

from ddhpc import checkpoint
from tests.disks import REFUSALS, disk


def state(value):
    return {"weights": torch.full((100,), float(value)), "step": value, "nested": {"names": ["a", "b"], "none": None}}


def test_what_is_saved_is_loaded(tmp_path):
    file = checkpoint.path(tmp_path, 3)
    checkpoint.save(file, state(1))
    loaded, damaged = checkpoint.load(file)
    assert file == tmp_path / "checkpoints/00003.pt"
    assert loaded["step"] == 1
    assert torch.equal(loaded["weights"], state(1)["weights"])
    assert loaded["nested"] == {"names": ["a", "b"], "none": None}
    assert damaged == []


def test_none_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "absent.pt") == (None, [])


def test_the_last_two_are_kept(tmp_path):
    for value in range(4):
        checkpoint.save(tmp_path / "x.pt", state(value))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.previous", "x.pt"]
    assert checkpoint.load(tmp_path / "x.pt")[0]["step"] == 3


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
        checkpoint.save(file, state(value))
    damage(file)
    loaded, damaged = checkpoint.load(file)
    assert loaded["step"] == 0
    assert damaged == [f"{file}: damaged, its checksum differs"]
    damage(tmp_path / "x.previous")
    assert checkpoint.load(file)[0] is None
    assert len(checkpoint.load(file)[1]) == 2


def test_a_crash_between_the_two_renames_leaves_the_one_before(tmp_path):
    file = tmp_path / "x.pt"
    checkpoint.save(file, state(0))
    file.rename(tmp_path / "x.previous")
    (tmp_path / "x.part").write_bytes(b"half a checkpoi")
    assert checkpoint.load(file)[0]["step"] == 0
    checkpoint.save(file, state(1))
    assert checkpoint.load(file)[0]["step"] == 1


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/ddhpc-evil",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    checkpoint.save(tmp_path / "x.pt", {"evil": Evil()})
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load(tmp_path / "x.pt")
    assert not os.path.exists("/tmp/ddhpc-evil")


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_disk_that_takes_no_more_leaves_the_checkpoint_as_it_is(kind, tmp_path):
    with disk(kind, tmp_path / "disk") as broken:
        file = broken.path / "x.pt"
        checkpoint.save(file, state(1))
        broken.fail()
        with pytest.raises(OSError, match=broken.refusal):
            checkpoint.save(file, state(2))
        assert checkpoint.load(file)[0]["step"] == 1
        broken.heal()
        checkpoint.save(file, state(3))
        assert checkpoint.load(file)[0]["step"] == 3
        assert checkpoint.load(file.with_suffix(".previous"))[0]["step"] == 1


def test_looking_at_checkpoints_bears_that_they_are_being_replaced(tmp_path):
    file = checkpoint.path(tmp_path, 0)
    ended = threading.Event()

    def replace():
        while not ended.is_set():
            checkpoint.save(file, {"step": 1})

    job = threading.Thread(target=replace)
    job.start()
    try:
        assert not any(checkpoint.verify(tmp_path) for _ in range(500))
    finally:
        ended.set()
        job.join()
