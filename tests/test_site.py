"The site: signatures as they are written, code that teaches, plots that can be read, Colab, and the wheel"
import ast, base64, inspect, json, re, shutil, struct, subprocess, sys, zipfile
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
import pytest, tomllib, yaml
sys.path.insert(0, str(Path(__file__).parent))
from pages import SYMBOLS, Described, Once, Written, last_words, packaged
from preview import anchored, broken, chapters, readable, style
from twice import differing
from test_house import INSTALL, NBS, ROOT, canon, cells, each, ini, names

# -- signatures

PUBLIC = [(m, n.removeprefix(f"{m}.")) for m,syms in SYMBOLS.items()
    for n in syms if not re.search(r"\._(?!_init__)", n)]

def named(module, name):
    found = import_module(module)
    for part in name.split("."): found = getattr(found, part)
    return found

@pytest.mark.parametrize("module", sorted({m for m,_ in PUBLIC}))
def test_signatures_are_as_they_were_written(module):
    "No NoneType, no __main__, no address in memory; a method has its class in the title, a dataclass every field"
    for name in [n for m,n in PUBLIC if m == module and not n.endswith("__")]:
        thing = named(module, name)
        if not (inspect.isroutine(thing) or inspect.isclass(thing) or isinstance(thing, property)): continue
        page = Written(thing)._repr_markdown_()
        assert f"### {name}\n" in page.replace("\\_", "_"), f"{module}.{name} is called something else:\n{page}"
        assert not re.search(r"NoneType|__main__|<[\w. ]+ at 0x", page), page
        if inspect.isclass(thing) and is_dataclass(thing):
            own = [f.name for f in fields(thing) if f.name in thing.__dict__.get("__annotations__", {})]
            assert all(re.search(rf"^    {f}\s*:", page, re.M) for f in own), page

def test_special_methods_keep_their_underscores():
    from harmonica.report import Report
    page = Written(Report.__repr__)._repr_markdown_()
    assert r"### Report.\_\_repr\_\_" in page and "def __repr__" in page and "Return repr" not in page

def test_comments_of_a_dataclass_and_stacked_decorators_are_shown_by_a_page():
    "As nbdev makes it for Quarto and for the preview: the notebook itself defines what is shown"
    code = """import json
from fastcore.nbio import read_nb
from nbdev.processors import FilterDefaults
nb = read_nb("nbs/46_align.ipynb")
FilterDefaults()(nb)
shown = [o.get("data", {}).get("text/markdown") for c in nb.cells for o in c.get("outputs", [])]
print(json.dumps(["".join(d) for d in shown if d]))"""
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT,
        env={**__import__("os").environ, "PYTHONPATH": "tests", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    shown = "\n".join(json.loads(made.stdout.splitlines()[-1]))
    assert "hop:Size=480          # Samples a frame: 50 frames a second" in shown
    assert "### Aligner.align\n" in shown and "def align(self:Aligner,\n    clip:Clip, # Speech" in shown
    assert not re.search(r"NoneType|__main__", shown)

def test_the_site_is_told_so():
    assert tomllib.loads((ROOT/"pyproject.toml").read_text())["tool"]["nbdev"]["renderer"] == "pages.Written"
    assert tomllib.loads((ROOT/"pyproject.toml").read_text())["tool"]["nbdev"]["doc_procs"].split() == ["pages:Once",
        "pages:Described"]
    assert "PYTHONPATH=tests" in re.search(r"^docs:.*\n(.*)", (ROOT/"Makefile").read_text(), re.M)[1]

def test_a_name_that_two_rooms_have_is_shown_from_its_own():
    from harmonica import ar, nar
    assert packaged(ar.AR.logits) is ar.AR.logits and packaged(nar.NAR.logits) is nar.NAR.logits

# -- code that teaches

@pytest.mark.parametrize("nb, taught", {"00_codec": "RVQ encode decode learn nearest",
    "25_blocks": "KVCache Attention Block Transformer rotate forward", "30_ar": "AR encode logits targets loss stream",
    "40_nar": "NAR encode forward logits generate", "41_flow": "FlowNAR velocity forward loss generate"}.items())
def test_code_that_teaches_is_shown(nb, taught):
    shown = "\n".join(s for s in cells(ROOT/f"nbs/{nb}.ipynb") if re.match(r"#\|\s*exports\b", s))
    assert set(taught.split()) <= set(re.findall(r"^(?:class|def) (\w+)", shown, re.M))

def test_what_is_shown_as_code_is_not_shown_as_a_signature_too():
    from fastcore.nbio import dict2nb
    doc = lambda: dict(cell_type="code", metadata={}, source="show_doc(f)",
        outputs=[dict(output_type="display_data", metadata={},
        data={"text/markdown": ["### f\n\n", "```python\ndef f(x)\n```\n\n*Why*"]})])
    code = dict(cell_type="code", metadata={},
        source='#| code-fold: show\n#| code-summary: "Exported source"\ndef f(x): pass', outputs=[])
    nb = dict2nb(dict(metadata={}, nbformat=4, nbformat_minor=5, cells=[doc(), code, doc()]))
    Once(nb).begin()
    first, last = ("".join(nb.cells[i].outputs[0]["data"]["text/markdown"]) for i in (0, 2))
    assert first == "### f\n\n" and "def f(x)" in last

def test_what_is_documented_stands_as_it_is_defined():
    "Two functions of one exported cell, and code of two that is shown: nbdev has the last of a cell come first"
    from fastcore.nbio import dict2nb
    def cell(source): return dict(cell_type="code", metadata={}, source=source, outputs=[])
    shown = '#| code-summary: "Exported source"\n@patch\ndef bounds(self:LengthControl): pass'
    turned = ["show_doc(token_times)", "show_doc(stretch)", "1+1", "show_doc(LengthControl.bounds)", shown]
    nb = dict2nb(dict(metadata={}, nbformat=4, nbformat_minor=5, cells=[cell(s) for s in turned]))
    Once(nb).begin()
    assert [c.source for c in nb.cells] == [turned[1], turned[0], *turned[2:]]

# -- pictures and sounds

def pictures(nb):
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        for o in c.get("outputs", []):
            if "image/png" in o.get("data", {}): yield c["id"], base64.b64decode("".join(o["data"]["image/png"]))

def sharpness(png):
    at = png.find(b"pHYs")
    return round(struct.unpack(">I", png[at+4:at+8])[0]*.0254)

@each
def test_plots_can_be_read(nb):
    "A hundred dots an inch or more: those that are stored, and those that the next run would store"
    small = {i for i,png in pictures(nb) if sharpness(png) < 100}
    assert not small, f"{nb.name}: below 100 dots an inch in cells {small}"
    plain = 'set_matplotlib_formats("png")' in "\n".join(cells(nb))
    assert plain or not list(pictures(nb)), f"{nb.name}: plots would be stored twice as large"
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        asked = re.findall(r"figsize=.*\bdpi=(\d+)", "".join(c["source"]))
        drawn = any("image/png" in o.get("data", {}) for o in c.get("outputs", []))
        assert not drawn or all(int(d) >= 100 for d in asked), f"{nb.name}: cell {c['id']} asks for dpi={asked}"

# Figures that are measured anew, and judges whose packages are not installed where outputs are made
SILENT = {"55_recipes d2202bf1", "69_judges 69000019", "70_eval f5af1ab3"}
SHOWS = {"print", "Clip.row", "plt.plot", "plt.imshow", "plt.bar", "plt.figure"}

@each
def test_what_draws_or_prints_has_left_something(nb):
    "A cell that a reader sees and that shows nothing: a figure whose file is gone, or outputs that nobody stored"
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        source = "".join(c["source"])
        hidden = re.search(r"^#\|\s*(hide|exports?|default_exp|eval:\s*false)", source, re.M)
        if c["cell_type"] != "code" or hidden or f"{nb.stem} {c['id']}" in SILENT: continue
        now = [s for s in ast.parse(source).body if not isinstance(s, (ast.FunctionDef, ast.ClassDef))]
        calls = {ast.unparse(n.func) for s in now for n in ast.walk(s) if isinstance(n, ast.Call)}
        assert c["outputs"] or not calls & SHOWS, f"{nb.name}: cell {c['id']} shows nothing:\n{source}"

def test_pages_in_the_dark_have_light_letters():
    "Code, printed text and tables take their colours from variables: all of them must change, not only the background"
    from nbconvert import HTMLExporter
    dark = style(HTMLExporter(template_name="lab")).partition("@media (prefers-color-scheme: dark)")[2]
    for name in ("content-font-color1", "layout-color0", "mirror-editor-keyword-color",
        "rendermime-table-row-background"):
        assert f"--jp-{name}:" in dark

@each
def test_sounds_tell_their_length_before_they_are_played(nb):
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        for o in c.get("outputs", []):
            players = re.findall(r"<audio\b[^>]*>", "".join(o.get("data", {}).get("text/html", [])))
            assert all('preload="metadata"' in p for p in players), f"{nb.name}: a player of cell {c['id']} shows 0:00"

def test_every_picture_has_a_text():
    "Told by the prose before it, in every notebook; Quarto and the preview both take it from there"
    from fastcore.nbio import read_nb
    for path in NBS:
        nb = read_nb(path)
        Described(nb).begin()
        for c in nb.cells:
            if any("image/png" in o.get("data", {}) for o in c.get("outputs", [])):
                assert re.match(r'#\| fig-alt: ".{10,}"\n',
                    c.source), f"{path.name}: a picture of which nothing is said"
    page = "## Heading\n\nEach **further** book,\nsee [RVQ](a.html), takes `a` bite.\n"
    assert last_words(page) == "Each further book, see RVQ, takes a bite."

# Chapters with a plot that follows code at once; this may only become less
UNTOLD = {"08_melcodec", "41_flow", "55_recipes", "60_infer", "62_export"}

@each
def test_what_is_on_a_plot_is_said_just_before_it(nb):
    "Otherwise its alternative text is of something else, and a reader looks for what it may be"
    before, silent = dict(cell_type="markdown"), []
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        source = "".join(c["source"])
        drawn = any("image/png" in o.get("data", {}) for o in c.get("outputs", []))
        if drawn and before["cell_type"] != "markdown" and "fig-alt" not in source: silent.append(c["id"])
        if not re.match(r"#\|\s*hide", source): before = c
    assert not silent or nb.stem in UNTOLD, f"{nb.name}: nothing is said just before the plots of {silent}"

def test_sharp_plots_are_shown_no_larger():
    "Twice the dots are twice as sharp, not twice as large: all letters on a page have one size"
    from fastcore.nbio import read_nb
    nb = read_nb(ROOT/"nbs/27_speaker.ipynb")
    Described(nb).begin()
    drawn = [o for c in nb.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    for o in drawn:
        size, png = o["metadata"]["image/png"], base64.b64decode("".join(o["data"]["image/png"]))
        assert size["width"] == round(struct.unpack(">I", png[16:20])[0]*100/sharpness(png)) < 700
    assert drawn

def test_a_picture_has_its_text_in_the_preview_too():
    import nbformat
    from nbconvert import HTMLExporter
    png = dict(output_type="display_data", metadata={}, data={"image/png": "iVBORw0KGgo=\n", "text/plain": "<Figure>"})
    cell = dict(cell_type="code", id="a", metadata={}, execution_count=None, outputs=[png],
        source='#| fig-alt: "Louder is \\"brighter\\""\ndraw()')
    nb = readable(nbformat.from_dict(dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)))
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(nb)
    told, = re.findall(r"<img\b[^>]*>", page)
    assert "Louder is &quot;brighter&quot;" in told or "alt='Louder is \"brighter\"'" in told, told
    assert "iVBORw0KGgo=" in told and "fig-alt" not in page

def test_what_a_page_may_not_hold_is_found(tmp_path):
    (tmp_path/"a.html").write_text('<a href="b.html">b</a><img src="data:x"><p>(__main__.Clip, x:NoneType=None)</p>')
    assert len(broken(tmp_path)) == 4

def test_a_heading_has_one_name_on_both_sites():
    "Quarto writes the names of headings in small letters, nbconvert as they stand"
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_markdown_cell, new_notebook
    nb = new_notebook(cells=[new_markdown_cell("## Why books\n\nSee [Why](#why-books).")])
    page = anchored(HTMLExporter(template_name="lab").from_notebook_node(nb)[0])
    assert re.findall(r'(?:id|href)="#?(why-books)"', page, re.I) == ["why-books"]*3

def test_each_page_leads_to_the_next():
    "From the index through tutorials and chapters, none left out, here and on the site that Quarto makes"
    order = chapters(yaml.safe_load((ROOT/"nbs/sidebar.yml").read_text())["website"]["sidebar"]["contents"])
    assert sorted(order) == sorted(f"{n}.html" for n in names)
    assert order[:2] == ["index.html", "tutorials/clone_your_voice.html"]
    assert yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["page-navigation"] is True

def test_notebooks_that_are_named_are_links():
    "In the prose of another notebook, a notebook's name leads there"
    for nb in NBS:
        for s in cells(nb, "markdown"):
            if "colab-badge" in s: continue
            plain = re.sub(r"\[[^\]]*\]\([^)]*\)|```.*?```|`[^`]*(?:nbdev|nbs/|ipynb|pytest)[^`]*`", "", s, flags=re.S)
            assert not (found := [n for n in names if re.search(rf"\b{re.escape(n)}\b", plain)
                and re.match(r"\d\d_", n)]), f"{nb.name} names {found} without a link:\n{s}"

# Names of Python, ray, pip and others
ELSEWHERE = set("AssertionError curl harmonica_first_byte_seconds index-url nproc_per_node remote".split())

def test_what_prose_names_in_code_exists():
    "A name or an option that was given another name must not live on in a chapter"
    def words(text): return set(re.findall(r"[A-Za-z_]\w*", text))
    files = [p for g in ("harmonica/*.py", "harmonica/*.toml", "harmonica/configs/*", "benchmarks/*.py", "tests/*.py",
        "Makefile") for p in ROOT.glob(g)]
    known = set().union(*(words(p.read_text(encoding="utf-8")) for p in files), ELSEWHERE)
    for nb in NBS:
        here = known | words("\n".join(cells(nb)))
        for span in re.findall(r"`([^`\n]+)`", "\n".join(cells(nb, "markdown"))):
            plain = re.sub(r"\"[^\"]*\"|'[^']*'", "", span)
            named = re.findall(r"([A-Za-z_]\w*)\s*[=(]", plain) + re.findall(r"^([A-Za-z_]\w{3,})$", span)
            options = [o.replace("-", "_") for o in re.findall(r"--([a-z][a-z_-]+)", plain)
                if o not in ELSEWHERE and o.split("-")[0] != "no"]
            assert not (gone := [n for n in named + options if n not in here]), f"{nb.name}: {gone} in `{span}`"

def test_what_is_not_said_again_is_told(tmp_path):
    "`make notebooks-twice` compares the outputs of two runs"
    cell = lambda i, data: dict(cell_type="code", id=i, source="",
        outputs=[dict(output_type="display_data", data=data)])
    for n,png in (("a", "x"), ("b", "y")):
        (tmp_path/n).write_text(json.dumps(dict(cells=[cell("11111111", {"text/plain": ["1\n", "2"]}),
            cell("22222222", {"image/png": png, "text/plain": "<Figure>"})])))
    assert differing(tmp_path/"a", tmp_path/"b") == ["22222222 (image/png)"]
    assert not differing(tmp_path/"a", tmp_path/"a")
    assert "tests/twice.py" in (ROOT/"Makefile").read_text()
    weekly = yaml.safe_load((ROOT/".github/workflows/test.yaml").read_text())["jobs"]["twice"]
    assert "schedule" in weekly["if"] and weekly["steps"][-1]["run"].startswith("make notebooks-twice")

# -- what the card promises: Colab, nbdev_test, import, the site

@each
def test_opens_in_colab(nb):
    "One badge, and its address names this very file on the branch that is published"
    told = re.findall(r"\(https://colab\.research\.google\.com/github/([\w-]+)/([\w-]+)/blob/([\w-]+)/(\S+?)\)",
        "\n".join(cells(nb, "markdown")[:2]))
    user, repo, branch, path = told[0]
    assert len(told) == 1 and (user, repo) == (ini["user"], ini["repo"])
    assert branch == tomllib.loads((ROOT/"pyproject.toml").read_text())["tool"]["nbdev"]["branch"]
    assert (ROOT/path).resolve() == nb.resolve()
    first = [s.strip() for s in cells(nb)]
    assert first.index(INSTALL) <= 1, "what installs comes before what imports"

def test_colab_keeps_its_torch():
    "An installer leaves a package in the range alone: ours begins below what Colab has had since February 2025"
    from packaging.requirements import Requirement
    torch = next(r for r in map(Requirement, ini["requirements"].split()) if r.name == "torch")
    assert all(torch.specifier.contains(v) for v in ("2.6.0+cu124", "2.8.0+cu126", "2.13.0+cu130", "3.0.0"))
    assert not any(canon(Requirement(r).name) in ("torchaudio", "torchvision")
        for r in ini["requirements"].split()), "they would pull in a torch of their own"
    job = yaml.safe_load((ROOT/".github/workflows/test.yaml").read_text())["jobs"]["colab"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    runs = [s["run"] for s in job["steps"] if "run" in s]
    have, before, install, after, speak = runs
    assert "torch<" in have and "torch.__version__" in before and "tee before.txt" in before
    assert install == "pip install -q ." and after.endswith(
        "| diff - before.txt"), "the torch that was there is the torch that is there afterwards"
    assert "harmonica-synthesize" in speak and "Studio()" in speak

def test_nbdev_runs_a_notebook(tmp_path):
    "`nbdev_test` by its own command, as the card says: a notebook passes, one with a mistake does not"
    run = lambda path: subprocess.run([Path(sys.executable).with_name("nbdev-test"), str(path)], cwd=ROOT,
        capture_output=True, text=True)
    assert (fine := run("nbs/01_phones.ipynb")).returncode == 0, fine.stderr[-2000:]
    shutil.copytree(ROOT/"nbs", tmp_path/"nbs", ignore=lambda d, fs: [f for f in fs if f not in ("01_phones.ipynb",)],
        symlinks=True)
    for f in ("pyproject.toml", "settings.ini"): shutil.copy(ROOT/f, tmp_path)
    nb = json.loads((tmp_path/"nbs/01_phones.ipynb").read_text())
    nb["cells"].append(dict(cell_type="code", id="0bad0bad", metadata={}, outputs=[], execution_count=None,
        source=["assert 1 == 2"]))
    (tmp_path/"nbs/01_phones.ipynb").write_text(json.dumps(nb))
    wrong = subprocess.run([Path(sys.executable).with_name("nbdev-test"), "nbs/01_phones.ipynb"], cwd=tmp_path,
        capture_output=True, text=True)
    assert wrong.returncode != 0 and "assert 1 == 2" in wrong.stderr

@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "What `pip install` makes of this tree; without the network, so with the build tools at hand"
    pytest.importorskip("setuptools")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for f in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT/f, tree)
    shutil.copytree(ROOT/"harmonica", tree/"harmonica", ignore=shutil.ignore_patterns("__pycache__"))
    made = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w",
        str(out), str(tree)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    return next(out.glob("*.whl"))

def test_the_wheel_has_all_that_speaks(wheel):
    held = {i.filename: i.file_size for i in zipfile.ZipFile(wheel).infolist()}
    here = {str(p.relative_to(ROOT)): p.stat().st_size for p in (ROOT/"harmonica").rglob("*") if p.is_file()
        and p.suffix != ".pyc"}
    assert {k: v for k,v in held.items() if k.startswith("harmonica/")} == here
    assert sum(p.endswith(".safetensors") for p in held) >= 5 and wheel.stat().st_size < 65e6
    assert wheel.name.startswith(f"harmonica_tts-{ini['version']}-py3-none-any")

def test_an_installed_wheel_imports_and_speaks(wheel, tmp_path):
    "From the wheel alone: not a file of this tree is looked at"
    zipfile.ZipFile(wheel).extractall(tmp_path/"site")
    code = ("import harmonica; from harmonica import Voice, Clip; print(harmonica.__file__)\n"
        "c = Voice.load().say('Yes.', retries=0); print(c.rate, c.seconds > .2)")
    env = {**__import__("os").environ, "PYTHONPATH": str(tmp_path/"site"), "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.split("\n")[:2] == [str(tmp_path/"site/harmonica/__init__.py"), "24000 True"]

def test_the_site_is_built_and_published():
    "Quarto on every pull request; what was built on `main` is what is published"
    flow = yaml.safe_load((ROOT/".github/workflows/docs.yaml").read_text())
    build, publish = (flow["jobs"][k]["steps"] for k in ("build", "publish"))
    steps = [s.get("uses", s.get("run", "")).split("@")[0] for s in build]
    assert steps.index("quarto-dev/quarto-actions/setup") < steps.index("make docs PYTHON=python") < steps.index(
        "actions/upload-artifact")
    kept = next(s["with"] for s in build if "upload-artifact" in s.get("uses", ""))
    taken = next(s["with"] for s in publish if "download-artifact" in s.get("uses", ""))
    assert kept["path"] == yaml.safe_load((ROOT/"nbs/nbdev.yml").read_text())["project"]["output-dir"] == taken[
        "path"] == next(s["with"]["publish_dir"] for s in publish if "gh-pages" in s.get("uses", ""))
    assert kept["name"] == taken["name"]
    site = yaml.safe_load((ROOT/"_quarto.yml").read_text())
    assert set(site["format"]["html"]["theme"]) == {"light", "dark"} and site["website"]["navbar"]["search"]
    assert (ROOT/"nbs"/site["website"]["open-graph"]["image"]).is_file()
