"""Options of `bayesref kinetics` that are checked before anything is read."""

from pathlib import Path

import pytest

from bayesref._checks import InputError
from bayesref.cli.kinetics_options import KineticsSettings, check_states

STATES = {"A": Path("a.pdb"), "B": Path("b.pdb")}


def test_a_radius_is_not_negative():
    with pytest.raises(InputError, match=r"--move B=HC4:-3: .* is not negative"):
        check_states(KineticsSettings(out=Path("o"), move=["B=HC4:-3"]), STATES)
    check_states(KineticsSettings(out=Path("o"), move=["B=HC4:3"]), STATES)


def test_spots_are_scaled_with_what_matters_for_their_kind():
    assert KineticsSettings(out=Path("o")).metadata == "auto"
