"Files from strangers run nothing and write nowhere; threads, forks and dependencies are what SECURITY.md says"
import builtins, multiprocessing, os, pickle, signal, subprocess, sys, threading, time
from importlib.metadata import distribution, PackageNotFoundError
from pathlib import Path
import numpy as np, pytest, torch
from harmonica.codec import Clip, load_codec, packaged_voice, reference
from harmonica.infer import Voice
from test_infer import me, reader, tiny_codec, tiny_models, voice

ROOT = Path(__file__).parents[1]

class Evil:
    "Writes a file when it is unpickled"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return builtins.exec, (f"open({self.path!r}, 'w').close()",)

def planted(kind, folder):
    "A file of that kind with a pickle in it"
    p = folder/f"planted.{kind}"
    if kind in ("pt", "th", "safetensors.pt"): torch.save({"model": Evil(folder/"ran"), "state": Evil(folder/"ran")}, p)
    else: p.write_bytes(pickle.dumps(Evil(folder/"ran")))
    return p

def openers():
    from harmonica.align import Aligner
    from harmonica.checkpoint import load_checkpoint, load_model
    from harmonica.config import load_config
    from harmonica.corpora import manifest
    from harmonica.data import CodesDataset
    from harmonica.eval import Report, read_rows
    from harmonica.recipes import load_trained
    from harmonica.text import load_lexicon
    from harmonica.watermark import Watermark
    def folder_of(p): (p.parent/"codes").mkdir(exist_ok=True); (p.parent/"codes"/"index.jsonl").write_bytes(p.read_bytes()); (p.parent/"codes"/"card.json").write_bytes(p.read_bytes()); return p.parent/"codes"
    return dict(wav=Clip.load, ogg=reference, voice=lambda p: VOICE.like(p), safetensors=load_model, pt=lambda p: load_checkpoint(p, model=torch.nn.Linear(1, 1)),
        th=lambda p: load_codec("encodec_24khz", weights=str(p)), tar=Watermark, yaml=lambda p: load_config(str(p)), jsonl=lambda p: list(manifest(p)), rows=read_rows,
        codes=lambda p: CodesDataset(folder_of(p)), lexicon=load_lexicon, json=Report.load, trained=lambda p: load_trained(str(p), "ar", "cpu"), codec=lambda p: load_codec(str(p)))

@pytest.mark.parametrize("kind", ["wav", "ogg", "voice", "safetensors", "pt", "th", "tar", "yaml", "jsonl", "codes", "lexicon", "json", "trained", "codec"])
def test_a_planted_pickle_never_runs(kind, tmp_path, voice):
    global VOICE; VOICE = voice
    p = planted(kind, tmp_path)
    with pytest.raises((ValueError, ImportError)): openers()[kind](p)
    pickle.dumps(Evil(tmp_path/"ran")); assert not (tmp_path/"ran").exists()
    if kind == "pt":                                                       # the trap itself works
        torch.load(p, weights_only=False); assert (tmp_path/"ran").exists()

def test_first_use_from_two_threads(voice):
    "Nobody may speak before the packaged prompt is corrected"
    alone = Voice(voice.codec, voice.ar, voice.nar, voice.tokenizer).say("Hi.", seed=1).samples
    for _ in range(3):
        fresh, got = Voice(voice.codec, voice.ar, voice.nar, voice.tokenizer), [None]*8
        gate = threading.Barrier(8)
        def speak(i): gate.wait(); got[i] = fresh.say("Hi.", seed=1).samples
        ts = [threading.Thread(target=speak, args=(i,)) for i in range(8)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert all(np.array_equal(g, alone) for g in got)

@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_use_does_not_hang():
    code = """
        import os, sys, time, signal, torch
        torch.set_num_threads(2)
        from harmonica import Voice
        voice = Voice.load(); voice.say("Hi there.")
        pid = os.fork()
        if not pid: voice.say("Hi there."); os._exit(7)
        until = time.time()+120
        while time.time() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done: sys.exit(0 if os.waitstatus_to_exitcode(status) == 7 else 3)
            time.sleep(.1)
        os.kill(pid, signal.SIGKILL); sys.exit(4)
    """
    import textwrap
    env = {k: v for k,v in os.environ.items() if k != "OMP_NUM_THREADS"}
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env).returncode == 0

def _say(seed): return Voice.load().say("Hi.", seed=seed).samples.tobytes()

def test_spawn_speaks_as_alone():
    with multiprocessing.get_context("spawn").Pool(1) as pool: assert pool.map(_say, [0]) == [_say(0)]

def test_a_stream_left_midway_and_an_error_leave_the_voice_usable(me):
    want = me.say("Hi there.").samples
    s = me.stream("One two three. Four five six. Seven eight nine."); next(s); s.close()
    for c in me.stream("One two three. Four five six."): inner = me.say("Hi there.").samples
    with pytest.raises(ValueError): me.say("")
    assert np.array_equal(inner, want) and np.array_equal(me.say("Hi there.").samples, want)

def test_no_shell_and_no_eval_in_the_package():
    import re
    for f in (ROOT/"harmonica").glob("*.py"):
        text = f.read_text(encoding="utf-8")
        assert not re.search(r"shell=True|os\.system|\beval\(|(?<![\w.])exec\(|pickle\.load|yaml\.(?:unsafe_load|full_load|UnsafeLoader|FullLoader)|yaml\.load\([^,)]*\)|weights_only=False|allow_pickle=True", re.sub(r"\.eval\(", "", text)), f.name

def test_dependencies_are_permissive():
    "What the package itself requires, all the way down"
    from packaging.requirements import Requirement
    todo, seen = ["harmonica-tts"], {}
    while todo:
        name = todo.pop()
        try: d = distribution(name)
        except PackageNotFoundError: continue
        if d.metadata["Name"] in seen: continue
        m = d.metadata; seen[m["Name"]] = " ".join([m["License-Expression"] or "", (m["License"] or "").split("\n")[0], *(m.get_all("Classifier") or ())])
        todo += [r.name for r in map(Requirement, d.requires or ()) if not r.marker or r.marker.evaluate({"extra": ""})]
    assert len(seen) > 20
    for name,said in seen.items():
        said = said.replace("LGPL", "").replace("Lesser General Public", "").replace("GPL-3.0-with-GCC-exception", "")
        assert "GPL" not in said and "GNU General Public" not in said, name

def test_security_page_names_tests_that_are_there():
    import re
    text = (ROOT/"SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`tests/(\w+\.py)(?:::(\w+))?`", text); assert len(named) > 15
    for f,t in named: assert not t or f"def {t}(" in (ROOT/"tests"/f).read_text(encoding="utf-8"), f"{f}::{t}"
