#!/usr/bin/env python3
"""Put the rows of tried.yaml into the table of 55_recipes, and count them: seconds, where the notebook takes minutes.

    python benchmarks/tried.py
"""
import ast, json, os
from collections import Counter
from html import escape
from pathlib import Path
import yaml
from IPython.display import HTML
from IPython.lib.pretty import pretty
from harmonica.files import write_text

NOTEBOOK = Path(__file__).resolve().parents[1]/"nbs/55_recipes.ipynb"

def shown(source, names):
    "What a cell shows at its end, run among these names"
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(last, "cell", "eval"), names)

def main():
    nb = json.loads(NOTEBOOK.read_text(encoding="utf8"))
    names = dict(Counter=Counter, HTML=HTML, Path=Path, escape=escape, yaml=yaml)
    os.chdir(NOTEBOOK.parent)
    for c in nb["cells"]:
        source = "".join(c["source"])
        if "def tried_table" not in source and "for r in tried" not in source: continue
        value = shown(source, names)
        data = {"text/plain": pretty(value).splitlines(True)}
        if isinstance(value, HTML):
            data = {"text/html": value.data.splitlines(True), "text/plain": ["<IPython.core.display.HTML object>"]}
        c["outputs"] = [dict(data=data, execution_count=None, metadata={}, output_type="execute_result")]
    write_text(NOTEBOOK, json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+"\n")
    print(f"{len(names['tried'])} rows in the table of {NOTEBOOK.name}")

if __name__ == "__main__": main()
