"""Scalars for TensorBoard, read back with its own reader."""

import pytest

tensorboard = pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from ddhpc.method.training import History  # noqa: E402
from ddhpc.results.scalars import Scalars, remove_all  # noqa: E402

NAN = float("nan")


def read(folder):
    """By tag the steps and values that TensorBoard shows."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    shown = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {
        tag: {"steps": [each.step for each in scalars], "values": [each.value for each in scalars]}
        for tag, scalars in shown.items()
    }


def history(*losses, val=()):
    many = len(losses)
    return History(
        loss=list(losses),
        accuracy=[0.5] * many,
        learning_rate=[0.25] * many,
        seconds=[2.0] * many,
        val_loss=[*val, *[NAN] * (many - len(val))],
        val_accuracy=[NAN] * many,
    )


def test_every_epoch_is_there_once_also_after_a_kill(tmp_path):
    killed = Scalars(tmp_path / "s")
    for epochs in (1, 1, 2, 3):
        killed.add(history(*[4.0, 3.0, 9.0][:epochs]))
    killed.writer.flush()  # what lies on the disk, of a job that never closes
    later = Scalars(tmp_path / "s")
    later.add(history(4.0, 3.0))
    later.add(history(4.0, 3.0, 2.0, 1.5, val=(NAN, 2.5)))
    later.close()
    shown = read(tmp_path / "s")
    assert shown["loss"] == {"steps": [1, 2, 3, 4], "values": [4, 3, 2, 1.5]}
    assert shown["learning_rate"] == {"steps": [1, 2, 3, 4], "values": [0.25] * 4}
    assert "val_loss" not in shown, "epoch 2 was written without"
    again = Scalars(tmp_path / "s")
    again.write(history(4.0, 3.0, 2.0, 1.5, val=(NAN, 2.5)))
    assert read(tmp_path / "s")["val_loss"] == {"steps": [2], "values": [2.5]}
    killed.close()


def test_nothing_is_written_without_a_folder_or_epochs(tmp_path):
    Scalars(None).write(history(1.0))
    Scalars(tmp_path / "s").write(History())
    assert not list(tmp_path.iterdir())


def test_a_training_goes_on_where_they_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    scalars = Scalars(tmp_path / "file" / "s")
    for epochs in (1, 2):
        scalars.add(history(*range(epochs)))
    scalars.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "scalars cannot be written to" in line
    assert line.endswith("the training goes on without them")


def test_those_of_an_earlier_run_are_removed_and_nothing_else(tmp_path):
    for name in ("subdomain-00007", "subdomain-00007-fold-1", "coarse-dnn", "mine"):
        Scalars(tmp_path / "tensorboard" / name).write(history(1.0))
    (tmp_path / "tensorboard/coarse-dnn/notes.txt").touch()
    remove_all(tmp_path)
    left = {str(path.relative_to(tmp_path / "tensorboard")) for path in tmp_path.rglob("*") if path.is_file()}
    assert "coarse-dnn/notes.txt" in left
    assert {path.split("/")[0] for path in left} == {"coarse-dnn", "mine"}
