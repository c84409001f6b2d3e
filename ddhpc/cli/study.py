"""A study: trainings that differ in what a YAML file varies, one after the other, resumable."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ddhpc.cli.help import yaml_word
from ddhpc.cli.options import configure, train_parser
from ddhpc.config import Config
from ddhpc.data.packed import find, open_packed
from ddhpc.errors import BAD_INPUT, TO_BE_CONTINUED, InputError, Stopped
from ddhpc.results import differences, identity, identity_of, is_finished, open_results
from ddhpc.tables.comparison import compare
from ddhpc.tables.pooled import print_pooled
from ddhpc.visible import tell
from ddhpc.yaml_file import read_yaml

MOST_TRAININGS = 1000
"""As many as a Slurm array has tasks, where nobody has set another limit."""
KEYS = ("recipe", "config", "options", "vary")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run of a study."""

    directory: Path
    arguments: list[str]
    """Of `python -m ddhpc train`, without --output."""
    config: Config

    def command(self, launcher: str, ranks: int) -> list[str]:
        """The command line that trains it on as many ranks as are of use, without the launcher on a single one."""
        used = min(ranks, self.config.decomposition.subdomains)
        start = shlex.split(launcher.format(ranks=used)) if used > 1 else []
        return [*start, sys.executable, "-m", "ddhpc", "train", *self.arguments, "--output", str(self.directory)]


def read_study(file: Path, output: Path) -> list[Training]:
    """The trainings of a study, in the order in which they run; InputError names what is wrong in the file.

    The file has `recipe` (a name) or `config` (a file); `options`, a mapping for all runs; and `vary`, a mapping from
    options to lists of values, of which every combination is a run, or a list of such mappings.
    """
    study = read_yaml(file)
    if not isinstance(study, dict) or not set(study) <= set(KEYS) or not study.get("vary"):
        raise InputError(f"{file}: expected a mapping with vary and perhaps {', '.join(KEYS[:3])}")
    options = study.get("options") or {}
    _check_options(file, "options", options)
    combinations = list(itertools.islice(_combinations(file, study["vary"]), MOST_TRAININGS + 1))
    if len(combinations) > MOST_TRAININGS:
        raise InputError(f"{file}: vary: makes more than {MOST_TRAININGS:,} trainings; expected several studies")
    for varied in combinations:
        if combinations.count(varied) > 1:
            raise InputError(f"{file}: vary: has {varied} twice; expected each training once")
    trainings, parser = [], train_parser()
    for name, varied in zip(_names(combinations), combinations, strict=True):
        chosen = [word for key in ("recipe", "config") if key in study for word in (f"--{key}", str(study[key]))]
        arguments = [*chosen, *_typed({**options, **varied})]
        try:
            config = configure(arguments, parser).config
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        trainings.append(Training(directory=output / name, arguments=arguments, config=config))
    return trainings


def _check_options(file: Path, key: str, options: Any) -> None:
    """InputError where options are no mapping from names to values."""
    if not isinstance(options, dict):
        raise InputError(f"{file}: {key}: expected a mapping from options to values, found {options}")
    for name in options:
        if not isinstance(name, str):
            raise InputError(f"{file}: {key}: expected the name of an option, such as local.epochs, found {name!r}")


def _names(combinations: Sequence[dict[str, Any]]) -> list[str]:
    """A directory for each training: its options without their sections, with them where two would have the same."""
    lengths = range(1, 1 + max(option.count(".") + 1 for varied in combinations for option in varied))
    for length in lengths:
        names = [
            "_".join(f"{'.'.join(option.split('.')[-length:])}-{_short(value)}" for option, value in varied.items())
            for varied in combinations
        ]
        if len(set(names)) == len(names):
            return names
    return [f"{name}_{number}" for number, name in enumerate(names, 1)]


def _combinations(file: Path, vary: Any) -> Iterator[dict[str, Any]]:
    for block in vary if isinstance(vary, list) else [vary]:
        _check_options(file, "vary", block)
        if not all(isinstance(values, list) and values for values in block.values()):
            raise InputError(f"{file}: vary: expected a mapping from options to lists of values, found {block}")
        for values in itertools.product(*block.values()):
            yield dict(zip(block, values, strict=True))


def _short(value: Any) -> str:
    return re.sub(r"[^\w.-]+", "-", "x".join(map(yaml_word, value)) if isinstance(value, list) else yaml_word(value))


def _typed(options: dict[str, Any]) -> list[str]:
    """Options as they are typed on the command line."""
    words = []
    for option, value in options.items():
        words += [f"--{option}", *map(yaml_word, value if isinstance(value, list) else [value])]
    return words


def run_study(
    study: str, output: str | None, ranks: int, launcher: str, only: int | None = None, list_only: bool = False
) -> None:
    """Run the trainings of a study that are not finished, and print and write their table.

    Args:
        study: YAML file, see `read_study`.
        output: directory for the runs and the table; by default runs/ and the study's name.
        ranks: at most so many at once.
        launcher: command with `{ranks}` that starts a training on several.
        only: number of the one training to run, from 1, without a table.
        list_only: print the commands and run nothing.

    Raises:
        InputError: the study cannot be read, or trainings failed; the others have run.
        Stopped: a signal ended the training that ran, with a checkpoint.
    """
    file = Path(study)
    directory = Path(output) if output else Path("runs") / file.stem
    trainings = read_study(file, directory)
    if only is not None and not 1 <= only <= len(trainings):
        raise InputError(f"--only {only}: the study has trainings 1 to {len(trainings)}")
    others = [line for training in trainings if is_finished(training.directory) for line in _another(training)]
    if others:
        raise InputError(f"{study}: {'; '.join(others)}; expected the same, or another --output for the new trainings")
    failed = []
    for number, training in enumerate(trainings, 1):
        if only not in (None, number):
            continue
        command = training.command(launcher, ranks)
        done = is_finished(training.directory)
        state = "finished before" if done else shlex.join(command)
        tell(f"[{number}/{len(trainings)}] {training.directory.name}: {state}")
        if not done and not list_only and (code := _run(command, training.config.run.stop_signal)):
            if code == TO_BE_CONTINUED:
                raise Stopped(f"stopped in {training.directory}; the same command continues")
            failed.append(f"{training.directory.name} (exit code {code})")
    if (
        only is None
        and not list_only
        and (finished := [each.directory for each in trainings if is_finished(each.directory)])
    ):
        compare(finished, directory / "table", seeds_together=True)
        _pool(trainings, directory)
    if failed:
        raise InputError(f"{study}: {len(failed)} of {len(trainings)} trainings failed: {', '.join(failed)}")


def _pool(trainings: Sequence[Training], directory: Path) -> None:
    """Print and write the metrics of each cross-validation of a study that has trained on all folds."""
    groups: dict[Config, list[Training]] = {}
    for training in trainings:
        config = training.config
        if config.data.fold is not None and is_finished(training.directory):
            groups.setdefault(replace(config, data=replace(config.data, fold=None)), []).append(training)
    for number, (config, group) in enumerate(groups.items(), 1):
        folds = open_packed(find(config.data.file)).folds
        if folds and {training.config.data.fold for training in group} == set(range(len(folds))):
            tell(f"cross-validation of {', '.join(training.directory.name for training in group)}")
            stem = directory / ("pooled" if len(groups) == 1 else f"pooled_{number}")
            print_pooled([training.directory for training in group], stem)


def _another(training: Training) -> list[str]:
    """What the finished run in the directory of a training has otherwise than the study asks for now."""
    with open_results(training.directory) as file:
        found = identity_of(file)
    config = training.config
    weights = None
    if config.model.weights is not None:
        from ddhpc.models.known_weights import read_weights

        weights = read_weights(config.model.weights).digest
    wanted = identity(config, open_packed(find(config.data.file)).digest, weights)
    changed = differences(found, wanted)
    return [f"{training.directory} is another run: {', '.join(changed)}"] if changed else []


def _run(command: list[str], stop_signal: str) -> int:
    """Run a command to its end and return its exit code; forward stop signals to it.

    The command gets a session of its own, so that Ctrl-C reaches it once, through the launcher. A stopped command may
    end with another code than TO_BE_CONTINUED: some launchers kill the ranks that leave last.
    """
    stopped = False
    with subprocess.Popen(command, start_new_session=True) as process:

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal stopped
            stopped = True
            process.send_signal(signal.Signals[f"SIG{stop_signal}"])

        asked = (signal.SIGINT, signal.SIGTERM, signal.Signals[f"SIG{stop_signal}"])
        before = [signal.signal(number, stop) for number in asked]
        try:
            code = process.wait()
        finally:
            for number, handler in zip(asked, before, strict=True):
                signal.signal(number, handler)
    return TO_BE_CONTINUED if stopped and code not in (0, BAD_INPUT) else code
