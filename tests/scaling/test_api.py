"""Would catch laws that need torch, a slow import, and names that are promised and missing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import speechscale.scaling as scaling

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "soundfile"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
"""
FIT = """
from speechscale.scaling import *
import numpy as np
L = LossLaw(E=1.7, A=14, B=40, alpha=.25, beta=.24)
N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
print(fit_runs(run_table(N, D, L.predict(N, D)), replicates=100)[0].constants["E"].value)
"""


def test_every_promised_name_is_there() -> None:
    assert scaling.__all__ == sorted(scaling.__all__, key=lambda name: (not name[0].isupper(), name))
    assert set(scaling.__all__) == set(scaling._HOMES)
    for name in scaling.__all__:
        assert callable(getattr(scaling, name))
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        scaling.fits  # noqa: B018


def test_laws_need_no_torch_and_load_fast() -> None:
    """Everything of the room and a whole fit, with torch and transformers made unimportable."""
    done = subprocess.run([sys.executable, "-c", BLOCKED + FIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1.7, abs=1e-3)


def test_the_import_itself_is_quick() -> None:
    """Below 1 s is promised (0.1 s measured); more for busy machines."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", BLOCKED + "import speechscale.scaling"], check=True)
    assert time.perf_counter() - start < 2.5
