"""How many examples hypothesis draws: `ci` few and the same ones every time, `nightly` many and new ones.

The variable HYPOTHESIS_PROFILE chooses; the default is `ci`. No profile has a deadline, since cores are shared.
"""

import os

from hypothesis import HealthCheck, settings

SHARES = {"ci": 0.3, "nightly": 1.0}  # of the examples that a test asks for by `scaled`
MIN_EXAMPLES = 5

settings.register_profile("ci", max_examples=30, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAME = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(NAME)


def scaled(max_examples: int) -> int:
    """The examples of a test whose nightly number is `max_examples`, in this profile."""
    return min(max_examples, max(MIN_EXAMPLES, round(max_examples * SHARES[NAME])))
