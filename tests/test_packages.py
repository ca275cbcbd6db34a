"""What is said of packages that a world needs and that are not there."""

from __future__ import annotations

import sys

import pytest

from lewm.envs import packages
from lewm.envs.packages import needed
from lewm.errors import UserError


@pytest.mark.parametrize(("module", "package"), [("dm_control", "dm-control"), ("ogbench", "ogbench")])
def test_where_there_is_no_build_another_python_is_named_and_not_an_install_that_cannot_help(
    module, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(packages, "PYTHON", (3, 13))
    with pytest.raises(UserError) as caught:
        needed(module, world="cube")
    assert str(caught.value) == (
        f"cube needs the package {package}, which has no build for Python 3.13 yet: use Python 3.12"
    )
    monkeypatch.setattr(packages, "PYTHON", (3, 12))
    with pytest.raises(UserError, match=r"not installed: pip install 'lewm\[envs\]'$"):
        needed(module, world="cube")


def test_packages_that_have_a_build_are_to_be_installed_on_any_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    monkeypatch.setattr(packages, "PYTHON", (3, 13))
    with pytest.raises(UserError, match=r"not installed: pip install 'lewm\[envs\]'$"):
        needed("gym_pusht", world="push_t")
