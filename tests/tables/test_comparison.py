"""What a table says of runs that should not stand side by side without a word."""

import json
from dataclasses import replace

import h5py
import numpy as np

from ddhpc.config import Config, Data, Local, Run
from ddhpc.results.cost import differences
from ddhpc.tables.comparison import Row, as_latex, by_seed, mixed

NUMBERS = dict.fromkeys(
    ("best_local", "mean", "vote", "dnn", "dnn_low", "dnn_high", "coherent", "critical_path", "compute", "wall"), 0.5
)


def settings(config):
    sections = config.to_dict()
    del sections["run"]["seed"]
    return json.dumps(sections)


A = Row(
    run="a",
    data="x",
    grid="2x2",
    overlap=2,
    network="resnet",
    epochs=10,
    seed=0,
    parameters=9,
    settings=settings(Config(data=Data(file="x.h5"))),
    data_digest="a" * 64,
    code="0.1.0 0123",
    **NUMBERS,
)


def test_runs_of_one_code_and_data_need_no_words():
    threads = settings(Config(data=Data(file="y/x.h5", memory_limit=2), run=Run(threads=2)))
    assert mixed([A]) == []
    assert mixed([A, replace(A, run="b", seed=1, settings=threads)]) == []
    assert mixed([A, replace(A, run="b", data="y", data_digest="b" * 64)]) == []


def test_a_table_says_where_code_data_and_settings_differ():
    other = replace(A, run="b", code="0.1.0 4567", data_digest="b" * 64)
    longer = replace(A, run="c", settings=settings(Config(data=Data(file="x.h5"), local=Local(epochs=3))))
    said = [
        "Different code: 0.1.0 0123: a, c; 0.1.0 4567: b",
        "Different data x: aaaaaaaaaaaa: a, c; bbbbbbbbbbbb: b",
        "They also differ in local.epochs",
    ]
    assert mixed([A, other, longer]) == said
    assert ". ".join(said) in as_latex([[A], [other], [longer]]).splitlines()[0]


def test_uncommitted_changes_are_said():
    dirty = replace(A, code="0.1.0 0123-dirty")
    assert mixed([dirty]) == []
    assert mixed([dirty, replace(dirty, run="b")]) == [
        "Code that ends in -dirty had uncommitted changes, which may differ between runs"
    ]


def test_seeds_of_other_data_are_no_mean():
    assert [len(group) for group in by_seed([A, replace(A, seed=1), replace(A, seed=2, data_digest="b" * 64)])] == [
        2,
        1,
    ]


def test_a_report_says_where_the_baseline_is_of_other_code(tmp_path):
    files = []
    for commit in ("0123", ""):
        file = h5py.File(tmp_path / f"{commit or 'none'}.h5", "w")
        file.attrs.update(config=Config().to_yaml(), processor="one", ddhpc_version="0.1.0", git_commit=commit)
        file["local/device"] = np.array([b"CPU"])
        files.append(file)
    assert differences(*files) == ["git_commit is 0123 against none"]
    assert differences(files[0], files[0]) == []
