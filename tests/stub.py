"""harmonica/__init__.pyi from the public classes: `python tests/stub.py` writes it, test_surface compares.

Without it, methods that come by @patch are unknown to type checkers."""
import inspect
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = '''# Made by tests/stub.py from the public classes: do not edit
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
import numpy as np
from torch import Tensor, device as Device, nn

__version__: str
Sound = str | os.PathLike[str] | bytes | BinaryIO | Clip
'''
FIELDS = dict(Clip=dict(samples="np.ndarray", rate="int", comment="str"), Voice={}, Encoder={},
    Codec=dict(name="str", sample_rate="int", frame_rate="float", n_q="int", codebook_size="int"))
PATH = "str | os.PathLike[str]"
TYPES = { # what a signature does not say
    "Voice.load:path": f"{PATH} | None", "Voice.load:codec": f"{PATH} | Codec | None",
    "Voice.load:ar": f"{PATH} | nn.Module | None", "Voice.load:nar": f"{PATH} | nn.Module | None",
    "Voice.load:device": "str | Device | None", "Voice.like:reference": "Sound", "Voice.save:path": PATH,
    "Voice.stream": "Iterator[Clip]", "Voice.say_batch": "list[Clip]", "Voice.say_batch:texts": "Iterable[str]",
    "Clip.load:src": "Sound", "Clip.save:path": PATH, "Clip.join:clips": "Iterable[Clip]",
    "Clip.__init__:samples": "Any", "Clip.__add__": "Clip", "Clip.__len__": "int",
    "load_codec:name": f"{PATH} | Codec", "load_codec:device": "str | Device | None", "*:reference": "Sound | None"}
PUBLIC = {n: names.split() for n,names in dict(
    Clip="load save encoded to tidy cut best join levels active plot spectrogram row",
    Codec="encode decode frames seconds", Encoder="__call__ close",
    Voice="load like say stream say_batch save pieces pronounce phonemes calibrate from_pretrained save_pretrained "
        "push_to_hub").items()}

def _type(key, a, default=inspect.Parameter.empty):
    if key in TYPES: return TYPES[key]
    if "*:"+key.split(":")[-1] in TYPES: return TYPES["*:"+key.split(":")[-1]]
    name = "Any" if a is inspect.Parameter.empty else "None" if a is None else a if isinstance(a, str) else getattr(a,
        "__name__", str(a)) if not hasattr(a, "__args__") else str(a)
    known = {"Clip", "Codec", "Voice", "Tensor", "Generator", "Path", "int", "float", "str", "bool", "bytes", "dict",
        "list", "tuple", "None", "Any"}
    name = "np.ndarray" if name == "ndarray" else name if name in known else "Any"
    return f"{name} | None" if default is None and name not in ("Any", "None") else name

def _signature(key, f, first):
    parts, star = [first] if first else [], False
    for n,p in list(inspect.signature(f).parameters.items()):
        if n in ("self", "cls"): continue
        if p.kind is p.VAR_POSITIONAL:
            parts.append(f"*{n}: {_type(f'{key}:{n}', p.annotation)}")
            star = True
            continue
        if n == "sampling":                                                # every field of `Sampling`, by name
            from harmonica.infer import Sampling
            parts += ["*"]*(not star) + [f"{k}: {_type(f'{key}:{k}', q.annotation, q.default)} = ..."
                for k,q in inspect.signature(Sampling).parameters.items()]
            continue
        if p.kind is p.VAR_KEYWORD:
            parts.append(f"**{n}: {_type(f'{key}:{n}', p.annotation)}")
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        parts.append(f"{n}: {_type(f'{key}:{n}', p.annotation, p.default)}"
            + (" = ..." if p.default is not p.empty else ""))
    back = "None" if key.endswith("__init__") else _type(key, inspect.signature(f).return_annotation)
    return f"({', '.join(parts)}) -> {back}: ..."

def stub():
    "The text of the stub"
    import harmonica
    from harmonica.codec import Codec, Encoder, packaged_voice, packaged_voices
    out = [HEAD]
    for c in (harmonica.Clip, Codec, Encoder, harmonica.Voice):
        n = c.__name__
        out.append(f"class {n}{'(nn.Module)' if n == 'Codec' else ''}:")
        out += [f"    {k}: {t}" for k,t in FIELDS[n].items()]
        for m in (["__init__"] if n != "Codec" else []) + PUBLIC[n] + (["__add__", "__len__"] if n == "Clip" else []):
            if not hasattr(c, m): continue
            f = getattr(c, m)
            bound = inspect.ismethod(f)
            if bound: out.append("    @classmethod")
            how = _signature(f"{n}.{m}", f.__func__ if bound else f, "cls" if bound else "self")
            out.append(f"    def {m}{how}")
        if n == "Clip": out.append("    @property\n    def seconds(self) -> float: ...")
        out.append("")
    out += [f"def {f.__name__}{_signature(f.__name__, f, '')}"
        for f in (harmonica.load_codec, packaged_voice, packaged_voices)]
    return "\n".join(out)+"\n"

def stubs():
    "name of file: its text; who imports the same names from their modules is told the same"
    more = lambda names: ("# Made by tests/stub.py: do not edit\nfrom typing import Any\n"
        f"from harmonica import {', '.join(f'{n} as {n}' for n in names)}\ndef __getattr__(name: str) -> Any: ...\n")
    return {"__init__.pyi": stub(), "codec.pyi": more(["Clip", "Codec", "Encoder", "load_codec", "packaged_voice",
        "packaged_voices"]), "infer.pyi": more(["Voice"])}

if __name__ == "__main__":
    for name,text in stubs().items(): (ROOT/"harmonica"/name).write_text(text, encoding="utf-8")
