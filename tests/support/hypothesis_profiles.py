"""Profiles of Hypothesis for slow builds and long searches: `-p tests.support.hypothesis_profiles`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("asan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")),
    suppress_health_check=[HealthCheck.too_slow],
)
