# Made by tests/stub.py: do not edit
from typing import Any
from harmonica import Clip as Clip, Codec as Codec, Encoder as Encoder, load_codec as load_codec, packaged_voice as packaged_voice, packaged_voices as packaged_voices
def __getattr__(name: str) -> Any: ...
