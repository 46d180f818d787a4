"Text and a few seconds of somebody's speech in, 24 kHz speech in that voice out"
__version__ = "0.1.0"
__all__ = ["Voice", "Clip", "load_codec", "__version__"]

import os
from typing import TYPE_CHECKING

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") # onnxruntime would report to its makers
if TYPE_CHECKING:
    from .codec import Clip, load_codec
    from .infer import Voice

def __getattr__(name):
    "torch takes seconds to import: whoever only asks a command for help need not wait for it"
    if name not in __all__: raise AttributeError(f"module 'harmonica' has no attribute {name!r}")
    from .codec import Clip, load_codec
    from .infer import Voice
    globals().update(Voice=Voice, Clip=Clip, load_codec=load_codec)
    return globals()[name]

def __dir__(): return sorted({*globals(), *__all__})
