"Hypothesis draws the same cases on every run and every machine; slow machines are not failures"
from hypothesis import settings
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")
