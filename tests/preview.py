"The docs as plain pages in _docs, where Quarto is not installed: `python tests/preview.py`, or `make docs`"
import argparse, html, json, re, shutil
from pathlib import Path
import nbformat, yaml
from nbconvert import HTMLExporter
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parents[1]
STYLE = """<style>
  body { display: grid; grid-template-columns: 14rem minmax(0, 54rem); gap: 2rem; max-width: 72rem;
         margin: 0 auto; padding: 1rem; font-family: system-ui, sans-serif; line-height: 1.5; }
  nav.site { font-size: .9rem; position: sticky; top: 1rem; align-self: start; max-height: 95vh; overflow: auto; }
  nav.site a { display: block; padding: .1rem 0; color: #24507a; text-decoration: none; }
  nav.site a.here { font-weight: bold; }
  nav.site p { margin: .8rem 0 .1rem; color: #777; }
  main { min-width: 0; }
  .jp-InputPrompt, .jp-OutputPrompt, .jp-Collapser { display: none; }
  audio { max-width: 100%; height: 32px; }
  .jp-InputArea-editor { border: 0; } .jp-RenderedHTMLCommon table { margin-left: 0; }
  blockquote { margin: 0 0 1rem; opacity: .8; }
  p.next { margin: 2rem 0; text-align: right; } p.next a { color: #24507a; }
  nav.site summary { cursor: pointer; font-weight: bold; }
  .jp-InputArea-editor pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .jp-OutputArea-output pre { overflow-x: auto; white-space: pre; }
  .jp-RenderedHTMLCommon table { display: block; overflow-x: auto; max-width: 100%; }
  .jp-RenderedMarkdown .highlight pre { font: .85rem/1.3 monospace; white-space: pre-wrap; word-break: normal; }
  .jp-OutputArea-output { padding-left: 5px; }
  .jp-RenderedHTMLCommon { overflow-wrap: anywhere; } img { max-width: 100%; height: auto; }
  .jp-RenderedHTMLCommon :is(td, th) { overflow-wrap: normal; }
  .jp-MarkdownOutput .highlight pre, .jp-MarkdownOutput > pre {
    margin: 0 0 1em; padding: .5em; background: var(--jp-cell-editor-background); white-space: pre-wrap; }
  @media (max-width: 50rem) {
    body { display: block; padding: 1rem; }
    nav.site { position: static; max-height: none; }
    .jp-Cell { padding-left: 0 !important; padding-right: 0 !important; }
    body.jp-Notebook { padding: .8rem !important; }
  }
  @media (prefers-color-scheme: dark) {
    DARK
    body { background: var(--jp-layout-color0); color: var(--jp-content-font-color1); }
    :root { --jp-mirror-editor-comment-color: #8ab4a8; }
    nav.site a, p.next a { color: #8fbce6; } nav.site p { color: #aaa; } .jp-OutputArea-output img { background: #fff; }
  }
</style>
<script>
  addEventListener("DOMContentLoaded", () => { document.querySelector("nav.site details").open = innerWidth > 800 })
</script>"""

def style(export):
    "The look of a page; in the dark it takes the colours of JupyterLab's own dark theme"
    dark = next(p/"static/theme-dark.css" for p in map(Path, export.template_paths)
        if (p/"static/theme-dark.css").is_file())
    return STYLE.replace("DARK", dark.read_text(encoding="utf-8"))

def title(nb):
    return next((l[2:].strip() for c in nb.cells if c.cell_type == "markdown"
        for l in c.source.split("\n") if l.startswith("# ")), None)

def plain(src):
    "Quarto's fences and directives mean nothing to nbconvert"
    src = re.sub(r"\A---\n(.*?)\n---\s*(?:\n|\Z)",
        lambda m: "".join(f"{mark} {d[k]}\n\n" for d in [yaml.safe_load(m[1])]
        for k,mark in (("title","#"), ("description",">")) if k in d), src, flags=re.S)
    return re.sub(r"^:{3,}.*$", "", src, flags=re.M)

def described(output, alt):
    "A picture with what is said of it: nbconvert itself knows no place for that"
    data = output.get("data", {})
    if not alt or "image/png" not in data: return output
    size = "".join(f' {k}="{v}"' for k,v in output.get("metadata", {}).get("image/png", {}).items())
    img = f'<img alt="{html.escape(alt)}"{size} src="data:image/png;base64,{data["image/png"].strip()}">'
    return nbformat.from_dict({**output, "data": {"text/html": img}})

def readable(nb):
    "A notebook as nbdev hands it to Quarto, in the form that nbconvert understands"
    for c in nb.cells:
        c.source = "".join(c.source)
        c.pop("has_sd", None)
        c.metadata.pop("execution", None)
        for o in c.get("outputs", []):
            for k,v in o.get("data", {}).items():
                o["data"][k] = re.sub(r"\)\{target=[^}]*\}", ")", "".join(v)) if isinstance(v, list) else v
            if "text" in o: o["text"] = "".join(o["text"])
        if c.cell_type == "raw" and c.source.startswith("---"): c.cell_type = "markdown"   # title and subtitle
        if c.cell_type == "markdown": c.source = plain(c.source)
        if c.cell_type != "code": continue
        if alt := re.search(r'^#\|\s*fig-alt:\s*(".*")$', c.source, re.M):
            c.outputs = [described(o, json.loads(alt[1])) for o in c.outputs]
        flags = re.findall(r"^#\|\s*(echo|include|output):\s*false", c.source, re.M)
        c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M)
        if "echo" in flags or "include" in flags: c.metadata["transient"] = {"remove_source": True}
        if "output" in flags or "include" in flags: c.outputs = []
    nb.cells = [c for c in nb.cells if c.source.strip() or c.get("outputs")]
    return nb

def anchored(page):
    "Headings are called what Quarto calls them, in small letters: one link leads there on both"
    return re.sub(r'(<h[1-6] id="|class="anchor-link" href="#)([^"]+)', lambda m: m[1]+m[2].lower(), page)

def chapters(side):
    "Pages in the order of the sidebar: each leads to the next"
    flat = [c for i in side for c in ([i] if isinstance(i, str) else i["contents"])]
    return [c.replace(".ipynb", ".html") for c in flat]

def preview(out=ROOT/"_docs", only="*"):
    "Every notebook, or only some, as a page with a sidebar"
    cache = proc_nbs(n_workers=2, force=True, file_glob="" if only == "*" else only)
    pages, side = {}, yaml.safe_load((ROOT/"nbs/sidebar.yml").read_text())["website"]["sidebar"]["contents"]
    for f in sorted(cache.rglob("*.ipynb")):
        nb = nbformat.from_dict(json.loads(f.read_text(encoding="utf-8")))
        pages[str(f.relative_to(cache).with_suffix(".html"))] = readable(nb)
    shutil.rmtree(out, ignore_errors=True)
    name = {p: title(nb) or p for p,nb in pages.items()}
    export = HTMLExporter(template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True)
    look, order = style(export), chapters(side)
    for p,nb in pages.items():
        up = "../"*p.count("/")
        link = lambda l: (
            lambda h: f'<a href="{up}{h}"{" class=here" if h == p else ""}>{html.escape(name.get(h, h))}</a>')(
            l.replace(".ipynb", ".html"))
        nav = "".join(link(i) if isinstance(i, str) else f"<p>{i['section']}</p>" + "".join(map(link, i["contents"]))
            for i in side)
        page = anchored(export.from_notebook_node(nb)[0])
        page = re.sub(r'(href="(?!https?:)[^"]+)\.ipynb', r"\1.html", page).replace("</head>", look + "</head>", 1)
        page = re.sub(r"<title>.*?</title>", f"<title>{html.escape(name[p])}</title>", page, count=1, flags=re.S)
        page = page.replace('preload="none"', 'preload="metadata"')
        menu = f'<nav class="site"><details open><summary>Chapters</summary>{nav}</details></nav>'
        (out/p).parent.mkdir(parents=True, exist_ok=True)
        following = order[order.index(p)+1:][:1] if p in order else []
        page = page.replace("</main>", "".join(f'<p class="next">Next: {link(n)}</p>' for n in following)+"</main>", 1)
        (out/p).write_text(page.replace("<main>", f"{menu}<main>", 1), encoding="utf-8")
    for f in (ROOT/"nbs").glob("*.png"): shutil.copy(f, out/f.name)
    return sorted(pages)

def broken(out=ROOT/"_docs"):
    "Links and images that lead nowhere, images that say nothing, and names that only a running notebook knows"
    found = []
    for page in sorted(Path(out).rglob("*.html")):
        text = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page.read_text(encoding="utf-8"))
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for l in re.findall(r'\b(?:href|src)="(?!https?:|data:|mailto:)([^"]+)"', text):
            to, _, mark = html.unescape(l).partition("#")
            target = page if not to else (page.parent/to)
            if not target.exists(): found.append(f"{page.name}: {l}")
            elif not to and mark and mark not in ids: found.append(f"{page.name}: #{mark}")
        found += [f"{page.name}: an image without a text"
            for i in re.findall(r"<img\b[^>]*>", text)
            if not re.search(r"\balt=(['\"])(?!\1|No description has been)", i)]
        found += [f"{page.name}: {w}" for w in re.findall(r"NoneType|__main__\.", text)]
    return found

def too_wide(out=ROOT/"_docs", shots=None, sizes=((360, 780), (1280, 900))):
    "Pages that scroll sideways on a phone or a desktop, in headless Chromium; `shots`: a folder for their pictures"
    from playwright.sync_api import sync_playwright
    chrome, found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None), []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        page = browser.new_page()
        for f in sorted(Path(out).rglob("*.html")):
            for width,height in sizes:
                page.set_viewport_size(dict(width=width, height=height))
                page.goto(f.as_uri(), wait_until="load")
                if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
                    found.append(f"{f.name}: {wide} wide on a screen of {width}")
                if shots: page.screenshot(path=Path(shots)/f"{f.stem}-{width}.png")
        browser.close()
    return found

if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--only", default="*", help="notebooks to make pages of, such as '30_*'")
    ask.add_argument("--look", type=Path,
        help="open every page in Chromium, phone and desktop, and keep what it looked like in this folder")
    given = ask.parse_args()
    made = preview(only=given.only)
    print(f"{len(made)} pages: open _docs/index.html")
    bad = [] if given.only != "*" else broken()
    if given.look:
        given.look.mkdir(parents=True, exist_ok=True)
        bad += too_wide(shots=given.look)
    for l in bad: print("broken:", l)
    raise SystemExit(bool(bad))
