"""YAML of somebody who means harm, or slips: one line each, in bounded memory."""

import tracemalloc

import pytest

from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.yaml_file import plain_values, read_yaml

ALIASES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, "more than 20,000 items; expected a configuration"),
        (MERGED, "more than 20,000 items; expected a configuration"),
        ("x: [" + "1," * 20_000 + "]", "more than 20,000 items"),
        ("x: " + "[" * 3000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply"),
        ("x: " + "1" * 2**19, "more than 262,144 letters"),
        ("x: " + "9" * 5000, "a number of 5,000 digits"),
        ("x: 0x" + "f" * 5000, "a number of 5,002 digits"),
        (
            "x: !!python/object/apply:os.system [id]",
            "python/object/apply:os.system: expected plain values",
        ),
        ("x: !!python/name:os.system", "expected plain values, without tags"),
        ("x: !!binary aGk=", "expected plain values"),
        ("x: !!set {a}", "expected plain values"),
        ("x: !mine 3", "expected plain values"),
        ("{[a]: 1}", "while constructing a mapping"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: 1\nb: 2\na: 3", "a is there twice; expected it once"),
        ("a: \x07", "unacceptable character"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_configuration_is_refused(text, reason, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"^{file}: cannot read it as YAML: [^\n]*{reason}[^\n]*$"):
        read_yaml(file)


@pytest.mark.parametrize("text", [ALIASES, MERGED])
def test_aliases_take_no_memory(text):
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than"):
        plain_values(text)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_what_people_write_is_read():
    text = "base: &base {epochs: 3, rate: 1e-3}\nmine: {<<: *base, epochs: 5, day: 2024-01-01, none: , flip: yes}\n"
    assert plain_values(text)["mine"] == {"epochs": 5, "rate": "1e-3", "day": "2024-01-01", "none": None, "flip": True}
    assert plain_values("# nothing\n") is None


@pytest.mark.parametrize("text", ["x", "[1]", "local: 3", "local: {epoch: 3}", "mine: {a: 1}", "local: {epochs: true}"])
def test_a_configuration_in_results_is_checked(text):
    with pytest.raises(ValueError, match="its configuration"):
        Config.from_yaml(text)


def test_values_in_results_have_the_types_of_their_options():
    for text in ("decomposition: {grid: 4}", "coarse: {hidden: [a]}", "model: {width: broad}", "local: {schedule: x}"):
        with pytest.raises(ValueError, match="which this version has not"):
            Config.from_yaml(text)
    config = Config.from_yaml("model: {width: auto, depth: 8}\nlocal: {learning_rate: 1}\ndata: {memory_limit: null}")
    assert (config.model.width, config.model.depth, config.local.learning_rate) == ("auto", 8, 1)
