"""Properties are tried without a deadline: the machine may be busy, and no test is about time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("segue", deadline=None)
settings.load_profile("segue")
