"""What a run directory may hold, and what --overwrite removes."""

from dataclasses import replace

import h5py
import pytest
import yaml

from ddhpc.config import BEFORE, Coarse, Config, Local
from ddhpc.errors import InputError
from ddhpc.results import begin, check_own, checkpoint, differences, fingerprint, identity, run_directory

NATURAL = Config(
    local=Local(class_weight="none", sampling="natural", validate_every=None),
    coarse=Coarse(class_weight="none", sampling="natural"),
)
WANTED = identity(Config(), "a" * 64)


def started(directory, found=WANTED, overwrite=False):
    begin(run_directory("x", str(directory)), found, overwrite)
    return directory


def other_seed():
    return {**WANTED, "run": {**WANTED["run"], "seed": 7}}


def test_the_same_run_goes_on_and_another_is_refused(tmp_path):
    started(tmp_path / "run")
    started(tmp_path / "run")
    with pytest.raises(InputError, match="unfinished run that is not this one: run.seed was 0 and is now 7; expected"):
        started(tmp_path / "run", other_seed())
    started(tmp_path / "run", other_seed(), overwrite=True)
    assert yaml.safe_load((tmp_path / "run/run.yaml").read_text()) == other_seed()


def test_where_the_data_lie_makes_no_other_run():
    moved = {**WANTED, "data": {"file": "elsewhere/x.h5"}}
    assert differences(WANTED, moved) == []
    assert fingerprint(WANTED) == fingerprint(moved) != fingerprint(other_seed())


def without(found, *options):
    """An identity as a version that lacked some options of the sections local and coarse wrote it."""
    sections = {name: {k: v for k, v in found[name].items() if k not in options} for name in ("local", "coarse")}
    return {**found, **sections}


def test_a_run_of_before_class_weights_goes_on_where_they_are_none(tmp_path):
    older = without(identity(NATURAL, "a" * 64), *BEFORE["local"])
    assert "class_weight" not in older["local"]
    started(tmp_path / "run", older)
    started(tmp_path / "run", identity(NATURAL, "a" * 64))
    assert fingerprint(older) == fingerprint(identity(NATURAL, "a" * 64))
    weighted = identity(replace(NATURAL, local=replace(NATURAL.local, class_weight="sqrt")), "a" * 64)
    assert fingerprint(older) != fingerprint(weighted)
    with pytest.raises(InputError, match="this one: local.class_weight was none and is now sqrt; expected"):
        started(tmp_path / "run", weighted)
    drawn = identity(replace(NATURAL, coarse=Coarse(class_weight="none", sampling="balanced")), "a" * 64)
    assert differences(older, drawn) == ["coarse.sampling was natural and is now balanced"]
    assert fingerprint(older) != fingerprint(drawn)


def test_digests_are_shown_by_their_first_digits():
    (shown,) = differences(WANTED, {**WANTED, "data_digest": "b" * 64})
    assert shown == f"data_digest was {'a' * 12} and is now {'b' * 12}"


@pytest.mark.parametrize("content", ["", "{}", "- 1\n", "a: 1\n", "!!python/object/apply:os.system [id]", "[" * 3000])
def test_a_run_yaml_that_is_none(content, tmp_path):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(InputError, match="^[^\\n]*run.yaml[^\\n]*$"):
        started(tmp_path)
    assert (tmp_path / "run.yaml").read_text() == content


def test_an_empty_run_yaml_after_a_crash_is_overwritten(tmp_path):
    started(tmp_path)
    (tmp_path / "run.yaml").write_text("")
    with pytest.raises(InputError, match="run.yaml: is empty; expected what the run is; --overwrite starts it anew"):
        started(tmp_path)
    started(tmp_path, overwrite=True)


def test_aliases_without_end_take_no_memory(tmp_path):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (tmp_path / "run.yaml").write_text("a0: &a0 [1]\n" + levels)
    with pytest.raises(InputError, match=r"run.yaml: cannot read it as YAML: more than 20,000 items"):
        started(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["checkpoints/model.ckpt", "run.yaml", "results.h5", "checkpoints"])
def test_what_somebody_else_keeps_there_is_left_alone(name, overwrite, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "results.h5":
        h5py.File(path, "w").close()
    else:
        path.write_text("mine: 1\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"--output {tmp_path}: {name} is no|{name} is not of a run"):
        started(tmp_path, overwrite=overwrite)
    assert path.read_bytes() == before


def test_overwrite_leaves_other_files_alone(tmp_path):
    started(tmp_path)
    checkpoint.save(checkpoint.path(tmp_path, 0), {"step": 1}, fingerprint(WANTED))
    (tmp_path / "notes.txt").write_text("mine")
    started(tmp_path, other_seed(), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not checkpoint.path(tmp_path, 0).exists()


def test_checkpoints_that_cannot_be_removed_end_the_job(tmp_path, monkeypatch):
    started(tmp_path)
    checkpoint.save(checkpoint.path(tmp_path, 0), {"step": 1}, fingerprint(WANTED))
    busy = checkpoint.path(tmp_path, 1)
    busy.mkdir()
    with pytest.raises(InputError, match="cannot write .*: Is a directory"):
        started(tmp_path, other_seed(), overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["checkpoints/00010.pt", "checkpoints/coherent/00010.pt", "results.h5.part"])
def test_names_of_ours_with_content_of_others_are_left_alone(name, overwrite, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} is no"):
        started(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name.rpartition("/")[2]]


@pytest.mark.parametrize("name", ["checkpoints/.nfs0001", "checkpoints/00000.pt.bak", "checkpoints/coherent/notes"])
def test_a_run_goes_on_with_other_files_beside_its_checkpoints(name, tmp_path):
    """NFS keeps removed files that are open under another name for a while."""
    started(tmp_path)
    for phase in checkpoint.PHASES:
        checkpoint.save(checkpoint.path(tmp_path, 0, phase), {"step": 1}, fingerprint(WANTED))
    (tmp_path / name).touch()
    started(tmp_path)
    assert checkpoint.path(tmp_path, 0).exists()
    started(tmp_path, other_seed(), overwrite=True)
    assert not list(tmp_path.rglob("*.pt"))
    assert (tmp_path / name).exists()


def test_a_lost_run_yaml_is_not_replaced_by_that_of_another_run(tmp_path):
    started(tmp_path)
    file = checkpoint.path(tmp_path, 0)
    checkpoint.save(file, {"step": 1}, fingerprint(WANTED))
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(InputError, match="00000.pt: is of another run than this one"):
        started(tmp_path, other_seed())
    started(tmp_path)
    assert yaml.safe_load((tmp_path / "run.yaml").read_text()) == WANTED


def test_results_that_another_job_has_begun_are_not_written(tmp_path):
    with pytest.raises(InputError, match=r"results.h5.part: another job has taken the run over"):
        check_own(tmp_path, "this")
    with h5py.File(tmp_path / "results.h5.part", "w") as file:
        file.attrs["job"] = "that"
    check_own(tmp_path, "that")
    with pytest.raises(InputError, match=r"results.h5.part: another job has taken the run over"):
        check_own(tmp_path, "this")
