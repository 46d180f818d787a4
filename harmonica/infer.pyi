# Made by tests/stub.py: do not edit
from typing import Any
from harmonica import Voice as Voice
def __getattr__(name: str) -> Any: ...
