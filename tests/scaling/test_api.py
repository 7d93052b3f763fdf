"""Would catch laws that need torch, a slow import, and names that are promised and missing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import speechscale.scaling as scaling

BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'tokenizers', 'soundfile']));"


def test_every_promised_name_is_there() -> None:
    assert scaling.__all__ == sorted(scaling.__all__, key=lambda name: (not name[0].isupper(), name))
    assert set(scaling.__all__) == set(scaling._HOMES)
    for name in scaling.__all__:
        assert callable(getattr(scaling, name))
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        scaling.fits  # noqa: B018


def test_laws_need_no_torch_and_load_fast() -> None:
    """Everything of the room and a whole fit, with torch and transformers made unimportable."""
    everything = "from speechscale.scaling import *; import numpy as np; "
    law = "L = LossLaw(E=1.7, A=14, B=40, alpha=.25, beta=.24); N, D = np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)); "
    work = "print(fit_runs(run_table(N.ravel(), D.ravel(), L.predict(N, D).ravel()), replicates=100)[0].constants['E'].value)"
    done = subprocess.run([sys.executable, "-c", BLOCKED + everything + law + work], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1.7, abs=1e-3)


def test_the_import_itself_is_quick() -> None:
    """Below 1 s is promised for the import (0.1 s measured, 0.5 s with everything); five times that for busy machines."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", BLOCKED + "import speechscale.scaling"], check=True)
    assert time.perf_counter() - start < 2.5
