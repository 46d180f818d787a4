"How the site shows an API and its pictures. pyproject.toml names `Written`, `Once` and `Described` to nbdev"
import ast, base64, inspect, json, re, struct
from dataclasses import is_dataclass
from importlib import import_module
from itertools import groupby
from textwrap import dedent
from fastcore.docments import docstring, qual_name
from nbdev.process import Processor
from nbdev.showdoc import BasicMarkdownRenderer

SYMBOLS = import_module("harmonica._modidx").d["syms"]    # module -> its names, as nbdev wrote them down

def packaged(sym):
    "The same thing in the package: of what a notebook defines while it runs, no source can be read"
    name = qual_name(inspect.unwrap(sym.fget) if isinstance(sym, property) else sym)
    for module,names in SYMBOLS.items():
        if f"{module}.{name}" not in names: continue
        found = import_module(module)
        for part in name.split("."): found = getattr(found, part)
        if docstring(found) == docstring(sym): return found
    return sym

def _fields(node, lines):
    "A dataclass: its fields, and what is said of them"
    kept = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    if not kept: return lines[node.lineno-1:node.lineno]
    before = node.body[0].end_lineno if isinstance(node.body[0], ast.Expr) else node.lineno
    return lines[node.lineno-1:node.lineno] + lines[before:kept[-1].end_lineno]

def _header(node, lines):
    "A function, up to its body"
    first = node.body[0]
    last = lines[first.lineno-1].encode()[:first.col_offset].decode()    # where a body begins on the last line
    return [*lines[node.lineno-1:first.lineno-1], *[last.rstrip()]*bool(last.strip())]

def written(sym):
    "What is written of a function, a method or a class before its body"
    sym = inspect.unwrap(sym.fget if isinstance(sym, property) else sym)
    source = dedent(inspect.getsource(sym))
    node, lines = ast.parse(source).body[0], source.split("\n")
    if not isinstance(node, ast.ClassDef): return "\n".join(_header(node, lines))
    if is_dataclass(sym): return "\n".join(_fields(node, lines))
    made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    return "\n".join([lines[node.lineno-1], *(l for n in made for l in _header(n, lines))])

class Written(BasicMarkdownRenderer):
    "A title with the class in it, the signature with its comments, and the docstring"
    def __init__(self, sym, name=None, title_level=3, **kwargs):
        there = packaged(sym)
        super().__init__(there, name=name or qual_name(there.fget if isinstance(there, property) else there),
            title_level=title_level, **kwargs)
        self.fn, self.nm = self.nm, self.nm.replace("__", r"\_\_")     # __len__ would be bold
        if not there.__doc__: self.docs = ""                           # not what Python says of every __repr__
        try: self.dm = written(there)
        except (OSError, TypeError): pass    # made by other code: there is nothing to read

def defined(source):
    "Names that code defines, Class.method for a patched one, and where"
    found = {}
    for n in ast.parse(source).body:
        if not isinstance(n, (ast.FunctionDef, ast.ClassDef)): continue
        first = n.args.args[0].annotation if isinstance(n, ast.FunctionDef) and n.args.args else None
        patched = isinstance(first, ast.Name) and any("patch" in ast.unparse(d) for d in n.decorator_list)
        found[f"{first.id}.{n.name}" if patched else n.name] = n.lineno
    return found

def _name(cell):
    "What a cell documents, if it does"
    m = re.search(r"^show_doc\(([\w.]+)\)", cell.source, re.M) if cell.cell_type == "code" else None
    return m and m[1]

def _shown(cell):
    "Names that a cell defines whose code is shown"
    if 'code-summary: "Exported source"' not in cell.source: return {}
    return defined(re.sub(r"(?m)^#\|.*$", "", cell.source))

class Once(Processor):
    """What is documented stands in the order in which it is defined (nbdev turns it round within a cell). Where the
    code itself is shown, no signature is shown before it: only the title and where it is from"""
    def begin(self):
        names = [n for n in map(_name, self.nb.cells) if n]
        module = next((m for m,known in SYMBOLS.items() if names and all(f"{m}.{n}" in known for n in names)), None)
        place = defined(inspect.getsource(import_module(module))) if module else {}
        for _,run in groupby(range(len(self.nb.cells)), lambda i: bool(_name(c := self.nb.cells[i]) or _shown(c))):
            run = list(run)
            cells = [self.nb.cells[i] for i in run]
            known = lambda c: [place[n] for n in (_shown(c) or [_name(c)]) if n in place]
            if all(map(known, cells)): cells.sort(key=lambda c: (max(known(c)), bool(_shown(c))))
            for i,c in zip(run, cells): self.nb.cells[i] = c
            self.bare(cells)

    def bare(self, cells):
        for n,shown in enumerate(cells):
            for o in (o for c in cells[:n] if _name(c) in _shown(shown) for o in c.get("outputs", [])):
                if "text/markdown" in o.get("data", {}):
                    o["data"]["text/markdown"] = re.sub(r"```python\n.*", "", "".join(o["data"]["text/markdown"]),
                        flags=re.S)

def last_words(markdown):
    "The last paragraph of a passage as plain text, up to 200 letters"
    plain = re.sub(r"<[^>]+>|(?m:^[#>\s*-]+)|[*`|]|\[([^\]]*)\]\([^)]*\)", r"\1",
        re.split(r"\n\s*\n", markdown.strip())[-1])
    plain = " ".join(plain.split())
    return plain if len(plain) <= 200 else plain[:200].rsplit(" ", 1)[0] + " ..."

def shown_size(png):
    "Width and height of a PNG in base64 at a hundred dots an inch, however sharp it was stored"
    raw = base64.b64decode(png)
    at = raw.find(b"pHYs")
    dots = round(struct.unpack(">I", raw[at+4:at+8])[0]*.0254) if at > 0 else 100
    return [round(n*100/dots) for n in struct.unpack(">II", raw[16:24])]

class Described(Processor):
    "For every plot its size, and an alternative text where it has none: what is said just before it"
    def begin(self):
        said = ""
        for c in self.nb.cells:
            if c.cell_type == "markdown": said = last_words(c.source) or said
            drawn = [o for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
            for o in drawn:
                width, height = shown_size("".join(o["data"]["image/png"]))
                o["metadata"] = {**o.get("metadata", {}), "image/png": dict(width=width, height=height)}
            if drawn and said and "fig-alt" not in c.source:
                c.source = f"#| fig-alt: {json.dumps(said, ensure_ascii=False)}\n{c.source}"
