import hashlib

import numpy as np
import pytest

from robustmri.data.cohort import Cohort
from robustmri.models.checkpoint import load_checkpoint
from robustmri.verbs.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("tiny_networks")


def test_x(tiny_run, tiny_cohort, tmp_path):
    c, ck = load_checkpoint(tiny_run)
    print(
        "WEIGHTS",
        ck.weights_sha256[:12],
        "IMAGES",
        hashlib.sha256(np.asarray(Cohort.open(tiny_cohort).images).tobytes()).hexdigest()[:12],
    )
    r = evaluate(
        tiny_run,
        tiny_cohort,
        tmp_path / "o",
        attacks=("fgsm", "pgd"),
        eps=("0.1",),
        limit=12,
        precision="fp32",
        options={"pgd": {"steps": 8}},
        examples_per_class=0,
    )
    print(
        "RES",
        [(x.attack, round(x.accuracy, 4)) for x in r.results if x.unit == "slice"],
        r.split.n_slices,
    )
