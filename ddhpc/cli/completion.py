"""`--completion bash`: a script from which a shell knows the verbs, their options, and what these take."""

from __future__ import annotations

from argparse import SUPPRESS, Action
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from shlex import quote

from jsonargparse import ArgumentParser

from ddhpc.cli.help import words
from ddhpc.cli.sources import KINDS
from ddhpc.errors import InputError
from ddhpc.recipes import recipe_names

SHELLS = ("bash", "zsh")
ALONE = ("--help", "--version", "--completion")
"""Options that stand in place of a verb."""
OF_BASH = "# ddhpc --completion bash > ~/.local/share/bash-completion/completions/ddhpc (mkdir -p before)"
OF_ZSH = """\
# . <(ddhpc --completion zsh)    in ~/.zshrc, after compinit
autoload -U +X bashcompinit && bashcompinit"""
SCRIPT = """\
{head}
_ddhpc() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD - 1]}} verb=train found=""
  if [[ $word == "=" ]]; then
    word=""
  elif [[ $option == "=" ]]; then
    option=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  case ${{COMP_WORDS[1]}} in
    {verbs}) verb=${{COMP_WORDS[1]}} ;;
  esac
  case $verb in
    {with_kinds}) [[ $COMP_CWORD -lt 3 ]] || verb+=-${{COMP_WORDS[2]}} ;;
  esac
  case $COMP_CWORD:$verb:$word in
    *:-*)
      case $verb in
{options}
      esac
      [[ $COMP_CWORD != 1 ]] || found+={alone} ;;
    1:*) found={verbs_in_order} ;;
{of_kinds}
    *)
      case $verb:$option in
{values}
      esac ;;
  esac
  # shellcheck disable=SC2207 # zsh has no mapfile
  COMPREPLY=($(compgen -W "$found" -- "$word"))
}}
complete -o default -F _ddhpc ddhpc"""
"""Where nothing is found the shell completes names of files."""


def script(shell: str, verbs: Sequence[str]) -> str:
    """The script for a shell.

    Args:
        shell: one of SHELLS; zsh takes the script of bash.
        verbs: their names, modules of this package with `arguments`.

    Raises:
        InputError: another shell.
    """
    if shell not in SHELLS:
        raise InputError(f"--completion {shell or 'nothing'}: expected {' or '.join(SHELLS)}")
    kinds = {"prepare": [*KINDS], "phantom": ["ct"]}
    known = dict(parsers(verbs))
    return SCRIPT.format(
        head=OF_BASH if shell == "bash" else OF_ZSH,
        verbs="|".join(verbs),
        with_kinds="|".join(kinds),
        alone=quote(" ".join(["", *ALONE])),
        verbs_in_order=quote(" ".join(verbs)),
        of_kinds="\n".join(f"    2:{verb}:*) found={quote(' '.join(names))} ;;" for verb, names in kinds.items()),
        options=_cases({name: _options(parser) for name, parser in known.items()}),
        values=_cases(
            {
                f"{name}:{option}": values
                for name, parser in known.items()
                for action in parser._actions
                if (values := _values(action))
                for option in action.option_strings
            }
        ),
    )


def parsers(verbs: Sequence[str]) -> Iterator[tuple[str, ArgumentParser]]:
    """The parser of each verb, of `prepare` one a kind, without kinds whose packages are not installed."""
    for verb in verbs:
        arguments = import_module(f"ddhpc.cli.{verb}").arguments
        if verb != "prepare":
            yield "phantom-ct" if verb == "phantom" else verb, arguments()
            continue
        for kind in KINDS:
            with suppress(InputError):
                yield f"prepare-{kind}", arguments(kind)


def _options(parser: ArgumentParser) -> list[str]:
    """Those that help shows, as it shows them."""
    shown = [action for action in parser._actions if action.help != SUPPRESS]
    return [
        next(option for option in action.option_strings if option != "-h") for action in shown if action.option_strings
    ]


def _values(action: Action) -> list[str]:
    """What an option takes; empty where that is not known, or null alone, so that the shell offers files."""
    found = recipe_names() if action.dest == "recipe" else words(action)
    return [] if found == ["null"] else found


def _cases(found: dict[str, list[str]]) -> str:
    """Patterns that give the same are one case."""
    patterns: dict[str, list[str]] = {}
    for pattern, values in found.items():
        patterns.setdefault(" ".join(values), []).append(pattern)
    return "\n".join(f"        {'|'.join(names)}) found={quote(values)} ;;" for values, names in patterns.items())
