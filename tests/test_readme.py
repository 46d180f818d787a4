"Every block of README.md runs, in its order, in one empty folder"
import json, os, re, stat, subprocess, sys
from pathlib import Path
import pytest
sys.path.insert(0, str(Path(__file__).parent))
from harmonica.codec import Clip, packaged_voice
from readme import links

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", (ROOT/"README.md").read_text(encoding="utf-8"))

# What needs a network, a loudspeaker or a night has a stand-in; everything else is the command itself
STANDINS = dict(
    pip='''import sys
from configparser import ConfigParser
ini = ConfigParser(delimiters=["="]); ini.read("ROOT/settings.ini"); ini = ini["DEFAULT"]
for a in sys.argv[1:]:
    if a.startswith("harmonica-tts["): assert f"{a.split('[')[1].split(']')[0]}_requirements" in ini, a
    if "github.com" in a: assert a.endswith(f"{ini['user']}/{ini['repo']}"), a''',
    ffplay="import sys; assert sys.stdin.buffer.read(4) == b'RIFF'",
    **{"harmonica-download": '''import sys, json, shutil
from pathlib import Path
from harmonica.codec import Clip, packaged_voice, packaged_voices
name, flag, root = sys.argv[1:]
assert (name, flag) == ("vctk", "--root"), sys.argv
home = Path(root)/"VCTK-Corpus-0.92"
for i,(name,v) in enumerate(list(packaged_voices().items())[:3]):
    who, clip = f"p{225+i}", Clip.load(packaged_voice(name)).to(24000)
    for d in (home/"wav48_silence_trimmed"/who, home/"txt"/who): d.mkdir(parents=True, exist_ok=True)
    for n in (1, 2):
        clip.save(home/"wav48_silence_trimmed"/who/f"{who}_{n:03d}_mic2.flac")
        (home/"txt"/who/f"{who}_{n:03d}.txt").write_text(v["text"])''',
    "harmonica-train": '''import sys
from harmonica.cli import train
small = dict(max_steps=1, valid_every=0, warmup_steps=0, ema=0, grad_accum_steps=1, batch_size=2, batch_frames=0)
sys.exit(train([*sys.argv[1:], "--device", "cpu", "--quiet", "model.ar.n_layers=1", "model.nar.n_layers=1",
    *(f"training.{k}={v}" for k,v in small.items()), "stages={}"]))''',
    "harmonica-serve": '''import subprocess, sys, time, urllib.request
start = "import sys; from harmonica.serve import serve; sys.exit(serve(sys.argv[1:]))"
p = subprocess.Popen([sys.executable, "-c", start, *sys.argv[1:], "--port", "PORT"])
try:
    for _ in range(600):
        assert p.poll() is None
        try: print(urllib.request.urlopen("http://127.0.0.1:PORT/health").read()); break
        except OSError: time.sleep(.5)
    else: sys.exit(1)
finally: p.terminate(); p.wait()'''})

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "An empty folder with me.wav in it, and the commands on the path"
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    home = tmp_path_factory.mktemp("readme")
    bin = home/"bin"
    bin.mkdir()
    Clip.load(packaged_voice("otis")).save(home/"me.wav")
    real = {f"harmonica-{c}": f"import sys; from harmonica.cli import {c}; sys.exit({c}(sys.argv[1:]))"
        for c in ("preprocess", "synthesize", "evaluate")}
    for name,code in {**real, **STANDINS}.items():
        f = bin/name
        f.write_text(f"#!{sys.executable}\n" + code.replace("ROOT", str(ROOT)).replace("PORT", str(port)))
        f.chmod(f.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg"}
    return home, env

def test_blocks_of_python(place):
    home, env = place
    code = "\n".join(b for kind,b in BLOCKS if kind == "python")
    r = subprocess.run([sys.executable, "-c", code], cwd=home, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert (home/"me.voice").stat().st_size < 500_000

@pytest.mark.parametrize("i", [i for i,(kind,_) in enumerate(BLOCKS) if kind == "bash"])
def test_blocks_of_the_shell(place, i):
    home, env = place
    r = subprocess.run(["bash", "-euo", "pipefail", "-c", BLOCKS[i][1]], cwd=home, env=env, capture_output=True,
        text=True)
    assert r.returncode == 0, r.stdout + r.stderr

def test_one_s_own_model_spoke_and_was_judged(place):
    "What the block on training promises"
    home, _ = place
    assert Clip.load(home/"mine.wav").seconds > .3
    items = json.loads((home/"results.json").read_text())["items"]
    assert len(items) == 1 and items[0]["text"] == "A voice of my own making." and not items[0].get("error")

def test_only_known_kinds_of_blocks(): assert {k for k,_ in BLOCKS} == {"python", "bash"}

def test_sounds_of_people_stand_in_a_table():
    assert links([("listen", "a.mp3")]) == "▶ [listen](a.mp3)"
    told = links([("ann, recorded", "a.mp3"), ("ann, cloned", "b.mp3"), ("bob, cloned", "c.mp3")])
    assert told.splitlines() == ["|  | ann | bob |", "| --- | --- | --- |", "| recorded | [▶ play](a.mp3) |  |",
        "| cloned | [▶ play](b.mp3) | [▶ play](c.mp3) |"]

def test_a_clone_is_heard_on_the_first_screen():
    "A recording beside its clone, six seconds of clones in all, before anything is explained"
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    first = text[:text.index("## Install")]
    links = re.findall(r"\]\((nbs/sounds/[^)]+)\)", first)
    assert sum("recorded" in l for l in links) >= 3 and sum("cloned" in l for l in links) >= 3
    assert sum(Clip.load(ROOT/l).seconds for l in links if "cloned" in l) >= 6
