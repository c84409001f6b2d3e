"""The coarse image in whole jobs: everything that a subdomain can do."""

import os
import shutil
import signal

import h5py
import pytest

from ddhpc.data.packed import open_packed, write_packed
from ddhpc.data.packed.pyramid import restrict
from ddhpc.data.packed.writer import Contents, Split
from ddhpc.method.decomposition import whole
from ddhpc.results import verify
from tests.conftest import make_older
from tests.jobs.starting import decisions, mpirun, ranks_of, same_bits, start, wait_for_checkpoint
from tests.jobs.test_coherent import outcome, same

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.grid", 2, 2, "--decomposition.coarse_image", "true", "--local.batch_size", 16),
    *("--model.global_width", 8, "--model.coarse_width", 6, "--coarse.epochs", 20, "--run.threads", 1),
]


def run(ranks, file, cwd, *arguments, output):
    completed = mpirun(ranks, "--data.file", file, *OPTIONS, *arguments, "--output", output, cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    assert verify(cwd / output) == []
    return cwd / output


@pytest.fixture(scope="module")
def whole_run(small, tmp_path_factory):
    """By one process, with augmentation."""
    cwd = tmp_path_factory.mktemp("coarse")
    return run(0, small, cwd, "--local.epochs", 3, "--local.shift", 1, output="run")


def test_a_rank_of_its_own_gives_the_same_bits(whole_run, small, tmp_path):
    found = run(5, small, tmp_path, "--local.epochs", 3, "--local.shift", 1, output="run")
    same_bits(found, decisions(whole_run))


def test_a_file_that_does_not_hold_it_restricted_gives_the_same_bits(whole_run, small, tmp_path):
    shutil.copy(small, tmp_path / "older.h5")
    file = make_older(tmp_path / "older.h5")
    found = run(0, file, tmp_path, "--local.epochs", 3, "--local.shift", 1, output="run")
    same_bits(found, decisions(whole_run))


def test_streamed_it_has_the_same_bits(whole_run, small, tmp_path):
    options = ["--local.epochs", 3, "--local.shift", 1, "--data.memory_limit", 0]
    same_bits(run(2, small, tmp_path, *options, output="run"), decisions(whole_run))


def test_its_decisions_are_those_of_a_global_cnn_on_restricted_images(small, tmp_path):
    """The same training as a run of its own on restricted images; of another seed, so about as good."""
    packed = open_packed(small)
    contents = Contents(
        classes=packed.classes,
        splits={
            split: Split(
                labels=packed.labels[split],
                ids=packed.ids(split),
                images=restrict(packed.read(split, whole(packed.image_shape)), (8, 7)),
            )
            for split in packed.splits
        },
        image_shape=(8, 7),
        channels=1,
        dtype="float32",
        source="restricted",
    )
    write_packed(tmp_path / "small-coarse.h5", contents)
    enriched = run(0, small, tmp_path, "--local.epochs", 12, output="enriched")
    alone = mpirun(
        *(0, "--data.file", "small-coarse.h5", "--decomposition.grid", 1, 1, "--local.epochs", 12),
        *("--local.batch_size", 16, "--model.width", 6, "--run.threads", 1, "--output", "alone"),
        cwd=tmp_path,
    )
    assert alone.returncode == 0, alone.stderr
    with h5py.File(enriched / "results.h5") as file, h5py.File(tmp_path / "alone/results.h5") as other:
        assert file["local/parameters"][-1] == other["local/parameters"][0]
        assert file["local/test/accuracy"][-1] == pytest.approx(other["local/test/accuracy"][0], abs=0.15)
        assert file.attrs["format_version"] == 2
        assert file["decomposition"].attrs["coarse_shape"].tolist() == [8, 7]
        assert file["decomposition/upper"][-1].tolist() == [16, 14]
        assert file["local/test/decision"].shape == (5, 33, 3)


def test_stopped_and_continued_by_a_task_for_it_alone(small, tmp_path):
    options = ["--data.file", small, *OPTIONS, "--local.epochs", 25, "--run.checkpoint_seconds", 0.2]
    expected = decisions(run(2, small, tmp_path, "--local.epochs", 25, output="whole"))
    job = start(2, *options, "--output", "run", cwd=tmp_path)
    wait_for_checkpoint(tmp_path, job)
    for pid in ranks_of(job)[-1:]:
        os.kill(pid, signal.SIGUSR2)
    assert job.wait(timeout=60) == 75, (tmp_path / "stderr").read_text()
    alone = mpirun(0, *options, "--output", "run", "--subdomain", 4, cwd=tmp_path)
    assert "subdomain 4 is done" in alone.stdout, alone.stderr
    assert mpirun(3, *options, "--output", "run", cwd=tmp_path).returncode == 0
    same_bits(tmp_path / "run", expected)


def test_it_goes_into_the_coherent_cnn_dnn_and_may_have_a_team(small, tmp_path):
    """With features, of which its wider CNN has more than the others; of two ranks, streamed, with the same bits."""
    options = ["--local.epochs", 2, "--local.shift", 1, "--coherent.start", "transfer", "--coherent.epochs", 2]
    one = run(0, small, tmp_path, *options, output="one")
    streamed = ["--data.memory_limit", 0, "--coarse.memory_limit", 0]
    same(outcome(run(2, small, tmp_path, *options, *streamed, output="two")), outcome(one))
    loss = outcome(one)["history/loss"]
    assert loss[-1] < loss[0]
    team = run(6, small, tmp_path, *options, output="team")
    assert outcome(team)["history/loss"] == pytest.approx(loss, rel=0.05)
    with h5py.File(one / "results.h5") as file:
        used = file["local/test/feature"][...].any(axis=1)
        assert used[:4, 16:].sum() == 0 < used[4, 16:].sum()


def test_the_coherent_cnn_dnn_from_scratch_takes_its_decisions_alone(small, tmp_path):
    """By any number of ranks with the same bits."""
    options = ["--local.epochs", 1, "--coarse.inputs", "decisions", "--coherent.start", "scratch"]
    one = run(0, small, tmp_path, *options, "--coherent.epochs", 3, output="one")
    same(outcome(run(3, small, tmp_path, *options, "--coherent.epochs", 3, output="three")), outcome(one))
    loss = outcome(one)["history/loss"]
    assert loss[-1] < loss[0]


def test_what_inspect_and_report_say_of_it(whole_run, small):
    shown = mpirun(0, "inspect", whole_run, cwd=whole_run.parent).stdout
    with h5py.File(whole_run / "results.h5") as file:
        alone = 100 * file["local/test/accuracy"][-1]
    assert "│ coarse image alone " in shown
    assert f"{alone:.1f} %" in shown
    reported = mpirun(0, "report", whole_run, "--output", "page", cwd=whole_run.parent)
    assert reported.returncode == 0, reported.stderr
    page = (whole_run.parent / "page/index.html").read_text()
    assert "Subdomain 4 is the coarse image: the whole image, restricted to 8x7." in page
    assert f"The coarse image alone has {alone:.1f} %." in page
    assert "The coarse image stands beside, in the same colours" in page
