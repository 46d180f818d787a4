"Text and a few seconds of somebody's speech in, 24 kHz speech in that voice out"
__version__ = "0.1.0"
from .codec import Clip, load_codec
from .infer import Voice # and with it every module that registers a codec
from . import align    # registers the aligner as a kind of model file

__all__ = ["Voice", "Clip", "load_codec", "__version__"]
