"""Checks of single options."""

from __future__ import annotations

from ddhpc.errors import InputError


def require(condition: bool, option: str, value: object, expected: str) -> None:
    """InputError, which names the option, unless a condition holds."""
    if not condition:
        raise InputError(f"--{option} {value}: expected {expected}")


def check_balance(section: str, class_weight: str, sampling: str) -> None:
    """InputError where classes were to be made as frequent as each other twice."""
    once = class_weight in ("auto", "none") or sampling == "natural"
    expected = f"none with --{section}.sampling balanced, after which all classes are as frequent already"
    require(once, f"{section}.class_weight", class_weight, expected)
