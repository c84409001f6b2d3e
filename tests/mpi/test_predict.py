"""New images on several ranks, which share inputs or subdomains of each: the bits of one process, and no deadlock."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.data.packed import SPLITS, Contents, Packed, Split, write_packed
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.errors import InputError
from ddhpc.method.applying import Applied
from ddhpc.method.decomposition import extent, owned
from ddhpc.method.problem import open_problem
from ddhpc.method.trained import trained
from ddhpc.predict import Settings, predict
from ddhpc.process import Process
from ddhpc.results.model import open_model, to_dict
from ddhpc.results.model_directory import MODEL, MODEL_PART, begin_model, describe_model, network_file, write_network
from ddhpc.solver.maps import MapsWanted
from ddhpc.solver.sharing import form_group

pytestmark = pytest.mark.mpi

SHAPE, GRID, VOLUMES = (12, 10, 9), (2, 2, 1), 6
ABSENT = 2


@pytest.fixture(scope="module")
def folder():
    """On all ranks: volumes, a packed file of some, and a model of five subdomains, one absent, with drawn weights."""
    from mpi4py import MPI

    made = MPI.COMM_WORLD.bcast(tempfile.mkdtemp() if MPI.COMM_WORLD.rank == 0 else "")
    if MPI.COMM_WORLD.rank == 0:
        draw(Path(made))
    MPI.COMM_WORLD.Barrier()
    yield Path(made)
    MPI.COMM_WORLD.Barrier()
    if MPI.COMM_WORLD.rank == 0:
        shutil.rmtree(made)


def draw(folder):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    (folder / "scans").mkdir()
    for n in range(VOLUMES):
        voxels = rng.integers(-1000, 1000, (13, 11, 9)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.5, 1.0, 2.0, 1.0])), folder / f"scans/{n}.nii.gz")
    preparation = VolumePreparation(
        shape=SHAPE,
        resize="stretch",
        spacing=None,
        intensity_range=(-900, 700),
        orientation="of the file",
        dtype="int16",
    )
    splits = {
        split: Split(
            labels=np.arange(2),
            ids=["a", "b"],
            images=[preparation.apply(folder / f"scans/{2 * place + n}.nii.gz") for n in range(2)],
        )
        for place, split in enumerate(SPLITS)
    }
    about = {"classes": ("no", "yes"), "image_shape": SHAPE, "channels": 1, "dtype": "int16", "source": "noise"}
    write_packed(folder / "x.h5", Contents(splits=splits, preparation=preparation.to_json(), **about))
    cut = Decomposition(grid=GRID, overlap=1, coarse_image=True)
    problem = open_problem(
        Config(data=Data(file=str(folder / "x.h5")), decomposition=cut, model=Model(name="resnet", global_width=8))
    )
    what = trained(problem, np.arange(problem.subdomains) != ABSENT)
    begin_model(folder, coherent=False)
    networks = {n: what.local_cnn(n) for n in range(what.subdomains) if n != ABSENT} | {None: what.coarse_dnn()}
    torch.nn.init.normal_(networks[None].layers[-1].weight)
    files = {
        network_file(n): write_network(folder, network_file(n), network.state_dict()) for n, network in networks.items()
    }
    describe_model(folder, to_dict(what, files, {"data_digest": problem.packed.digest, "run": ""}))
    (folder / MODEL_PART).rename(folder / MODEL)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decided(folder, comm, *sources, **settings):
    return predict(open_model(folder / MODEL), [folder / each for each in sources], comm, "cpu", Settings(**settings))


@pytest.fixture(scope="module")
def alone(folder):
    """Decisions of one process by id, of all inputs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = decided(folder, Process(), "scans", "x.h5")
    torch.set_num_threads(before)
    assert len(np.unique(found.decisions)) == 2 * VOLUMES, "they differ, and the packed ones are the same"
    return dict(zip(found.ids, found.decisions, strict=True))


def check_bits(found, expected, comm):
    """Those of one process, on rank 0 alone."""
    assert (found is None) == (comm.rank > 0)
    if found:
        assert list(found.ids) == list(expected)
        assert np.array_equal(found.decisions, list(expected.values()))


def only(alone, *ids):
    return {name: row for name, row in alone.items() if name.endswith(ids)}


def test_all_ranks_share_the_subdomains_of_one_volume(comm, folder, alone, monkeypatch):
    """One decodes it, and each of the others holds nothing but its windows."""
    decoded, computed = [], []
    apply, outputs = VolumePreparation.apply, Applied.outputs

    def counted(preparation, path):
        decoded.append(path.name)
        return apply(preparation, path)

    def noted(applied, block, subdomains, after_each):
        computed.extend(subdomains)
        assert comm.size == 1 or set(block.held) == set(subdomains) - {ABSENT}
        return outputs(applied, block, subdomains, after_each)

    monkeypatch.setattr(VolumePreparation, "apply", counted)
    monkeypatch.setattr(Applied, "outputs", noted)
    found = decided(folder, comm, "scans/0.nii.gz")
    assert decoded == ["0.nii.gz"] * (comm.rank == 0)
    assert computed == list(owned(5, comm.size, comm.rank))
    check_bits(found, only(alone, "/0.nii.gz"), comm)


def test_of_a_packed_file_each_rank_reads_its_windows_alone(comm, folder, alone, monkeypatch):
    """Also in several blocks, each of one split."""
    read = []
    reading = Packed.read

    def noted(packed, split, window, images=slice(None)):
        read.append(extent(window))
        return reading(packed, split, window, images)

    monkeypatch.setattr(Packed, "read", noted)
    found = decided(folder, comm, "x.h5", memory=0)
    check_bits(found, only(alone, "/a", "/b"), comm)
    what = open_model(folder / MODEL).trained
    mine = [what.extent(n) for n in owned(5, comm.size, comm.rank) if n not in (ABSENT, 4)]
    assert read == mine * VOLUMES
    assert SHAPE not in read


@pytest.mark.parametrize("memory", [0, 1.5 * 12 * 10 * 9 / 2**30])
def test_images_larger_than_memory_are_shared_as_well(memory, comm, folder, alone):
    """By all ranks, or by two for each, of which one with more decodes than the others."""
    check_bits(decided(folder, comm, "scans", "x.h5", memory=memory), alone, comm)


def test_fewer_inputs_than_ranks_one_of_them_unusable(comm, folder, alone):
    if comm.rank == 0:
        for name in ("bad.nii.gz", "worse.nii.gz"):
            (folder / name).write_bytes(b"no volume")
    comm.mpi.Barrier()
    found = decided(folder, comm, "bad.nii.gz", "scans/4.nii.gz", "scans/1.nii.gz")
    if found:
        assert [Path(name).name for name in found.ids] == ["4.nii.gz", "1.nii.gz"]
        assert all(np.array_equal(row, alone[name]) for name, row in zip(found.ids, found.decisions, strict=True))
        assert [problem.split(": ")[0] for problem in found.unusable] == [str(folder / "bad.nii.gz")]
    for memory in (0, 1):
        with pytest.raises(InputError, match=r"bad.nii.gz: .*\(and 1 more\); expected at least one file that fits"):
            decided(folder, comm, "bad.nii.gz", "worse.nii.gz", memory=memory)


@pytest.mark.parametrize("spoilt", [0, 4, None])
def test_what_fails_on_one_rank_ends_all(spoilt, comm, folder):
    """The network of a subdomain that one rank of a group reads, or the coarse DNN, in the first of several blocks."""
    model = open_model(folder / MODEL)
    damaged = replace(model, files={**model.files, network_file(spoilt): "0" * 64})
    with pytest.raises(InputError, match=f"{network_file(spoilt)}: damaged, its checksum differs"):
        predict(damaged, [folder / "scans"], comm, "cpu", Settings(memory=0))


def test_maps_are_those_of_one_process(comm, folder):
    usual = np.random.default_rng(1).random((5, 2 + open_model(folder / MODEL).trained.features)).astype(np.float32)
    for name, ranks in (("alone", Process() if comm.rank == 0 else None), ("shared", comm)):
        if ranks:
            maps = MapsWanted(folder=folder / name, overwrite=False, usual=usual)
            found = decided(folder, ranks, "scans/0.nii.gz", "scans/1.nii.gz", maps=maps)
    if comm.rank == 0:
        files = [(folder / name / file).read_bytes() for name in ("alone", "shared") for file in found.maps.files]
        assert files[:2] == files[2:]
        assert files[0] != files[1]
        assert np.abs(found.maps.drops).max() > 0.001
        assert sorted(path.name for path in (folder / "shared").iterdir()) == ["0_map.nii.gz", "1_map.nii.gz"]


@pytest.mark.parametrize(
    ("inputs", "memory", "groups"),
    [
        (1, 1, {1: 1, 3: 1, 4: 1}),  # all ranks on one image
        (2, 1, {1: 1, 3: 2, 4: 2}),
        (9, 1, {1: 1, 3: 3, 4: 4}),  # each rank by itself
        (9, 0.6 * 2 * 12 * 10 * 9 / 2**30, {1: 1, 3: 1, 4: 2}),  # two ranks hold an image
        (9, 0, {1: 1, 3: 1, 4: 1}),
        (9, float("inf"), {1: 1, 3: 3, 4: 4}),
    ],
)
def test_groups_and_what_they_decide(inputs, memory, groups, comm, folder):
    group = form_group(comm, inputs, open_model(folder / MODEL).trained, memory)
    firsts = comm.gather(np.array([[group.inputs.start, group.inputs.stop]]), comm.size)
    if comm.rank == 0:
        found = sorted(set(map(tuple, firsts.tolist())))
        assert [n for first, last in found for n in range(first, last)] == list(range(inputs))
        if comm.size in groups:
            assert len(found) == groups[comm.size]
