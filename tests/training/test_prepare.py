"""What is noted about data before the first step."""

import numpy as np
import pytest

from vaekit import from_arrays
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.training.prepare import extreme, prepare


@pytest.mark.parametrize(
    ("value", "observation", "said"),
    [(3.0, "standardised", False), (1e6, "standardised", True), (1e6, "quantile", False)],
)
def test_a_value_that_makes_the_others_look_constant_is_noted(value, observation, said):
    """One mistyped value in 200 rows: the standard deviation becomes that of the mistake."""
    x = np.random.default_rng(0).normal(size=(200, 3))
    x[7, 1] = value
    data = from_arrays(x, splits={"train": range(180), "valid": range(180, 190), "test": range(190, 200)})
    composition = get_recipe("vae")(DataSpec.of(data), latent=1, hidden=(4,), observation=observation)
    prepare(data, composition, 0)
    note = extreme(data, composition)
    assert (note is not None) == said
    if note:
        ratio = x[:180, 1].std() / np.subtract(*np.percentile(x[:180, 1], (75, 25)))
        assert note.startswith(
            f"column 1: a few values are so extreme that the middle half of the others lies within 1/{ratio:.0f} "
        )
