"Writing on a full disk, beside a killed process, into a folder that is in use; what is refused changes nothing"
import os, shutil, socket, subprocess, sys
from pathlib import Path
import pytest, torch
from harmonica.files import locked, sweep_litter, temporary_name, write_text
from tiny import Deals, Line

FULL = """
import resource, signal, sys
import torch
from pathlib import Path
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import save_checkpoint, save_model
from harmonica.data import write_shard
from harmonica import Clip, Voice
voice = Voice.load("ruth")
m = AR(ARConfig(vocab_size=40, n_q=2, n_bins=16, d_model=64, n_heads=2, n_layers=1, d_ff=64, code_dim=4,
    speaker_dim=8, duration_hidden_dim=8))
d = Path(sys.argv[1])
save_model(d/"m.safetensors", m, steps=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
rows = [dict(id=f"u{i}", text="t"*99, speaker="s", source="x", split="train", seconds=1., n_frames=50, codes=[0]*100)
    for i in range(200)]
for f in (lambda: save_model(d/"m.safetensors", m, steps=2), lambda: save_checkpoint(d/"c.pt", m),
        lambda: write_shard(rows, d/"s.arrow"), lambda: voice.save(d/"v.voice", "For a test."),
        lambda: Clip([0.]*9000).save(d/"c.wav")):
    try: f(); print("written")
    except ValueError as e: print(str(e).replace(str(d), "D"))
"""


def test_what_does_not_fit_is_told_with_its_path_and_leaves_nothing(tmp_path):
    "A limit on the size of files stands for the full disk: the same calls fail in the same places"
    r = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert [l.split()[0] for l in lines] == ["D/m.safetensors", "D/c.pt", "D/s.arrow", "D/v.voice", "D/c.wav"], lines
    assert all("can't be written" in l or "can't write" in l for l in lines), lines
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"] # and it is the whole old one
    from harmonica.checkpoint import load_model
    assert load_model(tmp_path/"m.safetensors").info == dict(steps=1)


@pytest.fixture
def little_disk(tmp_path):
    "A disk of 64 kB, where one may be mounted"
    (tmp_path/"disk").mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path/"disk")],
        capture_output=True) if shutil.which("mount") else None
    if done is None or done.returncode: pytest.skip("nothing may be mounted here")
    yield tmp_path/"disk"
    subprocess.run(["umount", str(tmp_path/"disk")], check=True)


PHONE = """
import sys
if sys.argv.pop(1) == "ffmpeg": sys.modules["av"] = None
from harmonica.cli import synthesize
sys.exit(synthesize())
"""


def aac(path, seconds):
    "A recording as a phone makes it"
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="mp4") as box:
        stream = box.add_stream("aac", rate=24000, layout="mono")
        frame = av.AudioFrame.from_ndarray(torch.rand(1, 24000*seconds).numpy()-.5, format="flt", layout="mono")
        frame.sample_rate = 24000
        box.mux(stream.encode(frame)+stream.encode())


@pytest.mark.parametrize("reader,size", [("ffmpeg", 500), ("ffmpeg", 90000), ("av", 5)])
def test_a_full_folder_for_temporary_files_is_one_line_and_never_half_a_recording(little_disk, tmp_path, reader, size):
    "A phone's recording is unpacked there, by PyAV or ffmpeg: it fills up before ffmpeg is asked, or while it writes"
    sound, tool = tmp_path/"phone.m4a", tmp_path/"bin/ffmpeg"
    if reader == "av": aac(sound, size)
    else: sound.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0"+bytes(size))
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nfor last; do :; done\nexec /usr/bin/head -c 90000 /dev/zero > $last\n")
    tool.chmod(0o755)
    r = subprocess.run([sys.executable, "-c", PHONE, reader, "--text", "Hi.", "--output", tmp_path/"o.wav",
        "--reference", sound], env=dict(os.environ, TMPDIR=str(little_disk), PATH=str(tool.parent)),
        capture_output=True, text=True)
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and f"disk full at {little_disk}" in r.stderr, r.stderr
    assert not (tmp_path/"o.wav").exists() and not list(little_disk.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_a_command_says_what_to_do(tmp_path, capsys):
    from harmonica.command import command
    @command
    def fill():
        with open("/dev/full", "w") as f: f.write("x"*100000)
    assert fill([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "disk full" in said and "TMPDIR" in said


def test_a_sound_and_a_server_sweep_what_a_killed_run_left(tmp_path):
    from harmonica.script import sound_file
    from harmonica.serve import Voices
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    litter = tmp_path/f".o.wav.{dead.pid}@{socket.gethostname()}.tmp"
    for sweeps in (lambda: sound_file(str(tmp_path/"o.wav")), lambda: Voices(None, tmp_path)):
        litter.touch()
        sweeps()
        assert not litter.exists()


def test_a_clip_is_written_under_a_name_that_is_swept(tmp_path, monkeypatch):
    from harmonica import Clip
    seen = []
    monkeypatch.setattr(os, "replace", lambda a, b: seen.append((a, b)))
    Clip([0.]*2400).save(tmp_path/"o.wav")
    assert seen == [(temporary_name(tmp_path/"o.wav"), tmp_path/"o.wav")]


def test_a_disk_that_is_really_full(little_disk):
    from harmonica import Clip, Voice
    from harmonica.checkpoint import save_checkpoint, save_model
    from harmonica.data import write_shard
    (little_disk/"ballast").write_bytes(bytes(62000))
    rows = [dict(id="u", text="t", speaker="s", source="x", split="train", seconds=1., n_frames=50, codes=[0]*50000)]
    from harmonica.ar import AR, ARConfig
    ar = AR(ARConfig(vocab_size=40, n_q=2, n_bins=16, d_model=64, n_heads=2, n_layers=1, d_ff=64, code_dim=4,
        speaker_dim=8, duration_hidden_dim=8))
    voice = Voice.load("ruth")
    for f in (lambda: save_model(little_disk/"m.safetensors", ar), lambda: save_checkpoint(little_disk/"c.pt", ar),
        lambda: write_shard(rows, little_disk/"s.arrow"), lambda: voice.save(little_disk/"v.voice", "For a test."),
        lambda: Clip([.1]*90000).save(little_disk/"c.wav")):
        with pytest.raises(ValueError, match="disk full at .*disk/.*: make room") as e: f()
        assert "\n" not in str(e.value)
    assert [p.name for p in little_disk.iterdir()] == ["ballast"]


def test_a_full_disk_has_a_name_of_its_own(tmp_path):
    import errno
    from harmonica.files import write_safely
    def full(p): raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="disk full at .*x.txt: make room"): write_safely(tmp_path/"x.txt", full)


def test_litter_of_the_dead_is_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = socket.gethostname()
    for name in (f".a.{dead.pid}@{here}.tmp", f".a.{dead.pid}@elsewhere.tmp", temporary_name(tmp_path/"b").name):
        (tmp_path/name).touch()
    sweep_litter(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {f".a.{dead.pid}@elsewhere.tmp", temporary_name(tmp_path/"b").name}


def test_a_lock_goes_with_its_process(tmp_path):
    body = ("import sys, time; from harmonica.files import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); time.sleep(60)")
    p = subprocess.Popen([sys.executable, "-c", body, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    p.stdout.readline()
    with pytest.raises(ValueError, match="in use by another process"):
        with locked(tmp_path): pass
    p.kill()
    p.wait()
    with locked(tmp_path, wait=5): write_text(tmp_path/"x", "mine")


def test_a_refused_resume_leaves_the_settings_as_they_are(tmp_path, capsys):
    from harmonica.config import load_config
    from harmonica.recipes import open_run
    from harmonica.train import TrainConfig, Trainer
    cfg = TrainConfig(max_steps=2, grad_accum_steps=1)
    Trainer(Line(2), Deals(), cfg, open_run(load_config("smoke"), tmp_path/"r", False), "cpu").fit(progress=False)
    old = (tmp_path/"r/config.yaml").read_text()
    other = open_run(load_config("smoke", ["training.lr=0.5"]), tmp_path/"r", True)
    with pytest.raises(ValueError, match="another model or size"):
        Trainer(Line(3), Deals(), cfg, other, "cpu").fit(resume=True, progress=False)
    assert (tmp_path/"r/config.yaml").read_text() == old
    for f in (tmp_path/"r").glob("last*.pt"): f.unlink()
    (tmp_path/"r/ar.safetensors").touch()
    with pytest.raises(ValueError, match="holds a run already"): open_run(load_config("smoke"), tmp_path/"r", False)
