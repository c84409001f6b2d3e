from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddhpc.models import build, local_width, parameters


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_width_is_the_nearest_to_global_over_root_of_subdomains(width, subdomains):
    local = local_width(width, subdomains)
    assert local >= 1
    assert local == 1 or abs(local * subdomains**0.5 - width) <= 0.5000001 * subdomains**0.5
    assert local_width(width, 1) == width


@pytest.mark.parametrize(("subdomains", "local"), [(1, 32), (4, 16), (16, 8), (32, 6), (1024, 1), (10**6, 1)])
def test_widths_of_a_global_cnn_of_32_channels(subdomains, local):
    assert local_width(32, subdomains) == local


@pytest.mark.parametrize(("subdomains", "local"), [(1, 32), (4, 23), (16, 16), (32, 13), (81, 11), (2**20, 1)])
def test_wide_ones_have_the_fourth_root(subdomains, local):
    assert local_width(32, subdomains, wide=True) == local


@pytest.mark.parametrize(("family", "factor"), [("resnet", 1.25), ("vgg", 1.25), ("mobilenetv2", 1.7)])
@pytest.mark.parametrize("window", [(16, 16), (8, 8, 8)], ids=["2D", "3D"])
@pytest.mark.parametrize("subdomains", [4, 16, 32])
def test_all_local_cnns_have_about_as_many_parameters_as_the_global_one(family, factor, window, subdomains):
    """Not fewer, and more by what grows with the width itself: stem, classifier, normalisation, depthwise layers."""

    def count(width):
        return parameters(build(family, channels=3, classes=10, window=window, width=width))

    assert 0.99 < subdomains * count(local_width(32, subdomains)) / count(32) < factor


def test_the_rule_is_there_without_torch():
    code = "import sys, ddhpc.models; ddhpc.models.local_width(32, 16); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    import ddhpc.models

    with pytest.raises(AttributeError, match="nix"):
        _ = ddhpc.models.nix
