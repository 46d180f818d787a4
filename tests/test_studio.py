"The studio: what its buttons do, without a browser and in one"
import base64, importlib, os, re, shutil, socket, subprocess, sys, threading, time, warnings
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
import numpy as np, pytest
from harmonica.codec import Clip, packaged_voice
from harmonica.infer import Sampling, Voice
from harmonica.studio import Studio, left_out, picture

pytest.importorskip("ipywidgets")

class Parrot:
    "Stands in for a Voice: says what it heard, once a sentence"
    notes = []
    def __init__(self, clip=None): self.clip = clip
    def like(self, sound, text=None, adapt=True):
        p = Parrot(Clip.load(sound))
        p.notes, p.text = ["resampled"], text
        return p
    def pieces(self, text): return [s for s in text.split(".") if s.strip()]
    def stream(self, text, timings, **how):
        if not text.strip(): raise ValueError("text was empty; it needs at least one word to say: try 'Hello.'")
        self.how = how
        for i,s in enumerate(self.pieces(text)):
            if hasattr(self, "gate"): self.gate.acquire()
            yield self.clip or Clip(np.ones(2400)*.1*(i+1), words=[(s, 0., .1)])
    def save(self, path, consent): path.write_text(consent)

def players(widget): return widget.value.count("<audio")

def test_no_voice_is_kept_without_consent(tmp_path):
    s = Studio(Parrot(), "Hello.")
    assert s.keep(tmp_path) is None and "belongs to the package" in s.says.value
    s.hear("../../me too.ogg", packaged_voice())
    for said in ("", "   ", "yes"):
        s.consent.value = said
        assert s.keep(tmp_path) is None and "nothing was saved" in s.says.value and not list(tmp_path.iterdir())
    s.consent.value = "My own voice, for my own use."
    p = s.keep(tmp_path)
    assert p == tmp_path/"me-too.voice" and p.read_text() == "My own voice, for my own use." and s.consent.value == ""
    # to take away, where the folder is a server's
    assert base64.b64decode(re.search(r"base64,([^\"]+)", s.says.value)[1]) == p.read_bytes()
    s.keeper.click()
    assert "nothing was saved" in s.says.value   # each voice is asked for

def test_a_kept_voice_says_who_agreed(tmp_path):
    s = Studio(Voice.load())
    s.hear("me.ogg", packaged_voice())
    s.consent.value = "My own voice, for my own use."
    path = s.keep(tmp_path)
    kept = Voice.load(path, codec=s.voice.codec, ar=s.voice.ar, nar=s.voice.nar)
    assert kept.prompt.consent == "My own voice, for my own use." and kept.prompt.agreed
    assert s.hear("me.voice", path.read_bytes()) and s.looks["me.voice"] == ""   # and can be uploaded again

def test_speak_and_compare():
    s = Studio(Parrot(), "Hello.")
    assert s.speak().seconds == .1
    s.seed.value, s.speed.value = 7, 1.5
    s.button.click()
    s.work.join(20)
    assert len(s.takes) == 2 and "seed 7" in s.takes[1][0] and "speed 1.5" in s.takes[1][0]
    assert (s.left.value, s.right.value) == (1, 2)
    assert players(s.out) == 2 and s.out.value.index("seed 0") < s.out.value.index("seed 7")
    assert s.out.value.count("<img") == 2 and s.out.value.count('alt="Waveform') == 2
    assert s.out.value.count("download=") == 2
    flac = Clip.load(base64.b64decode(re.search(r"audio/flac;base64,([^\"]+)", s.out.value)[1]))
    assert np.allclose(flac.samples, s.takes[0][2].samples, atol=1e-3)
    assert not s.button.disabled and s.canceller.disabled

def test_what_nobody_touched_is_what_speaking_does():
    "One source of defaults: a knob that was not moved must not overrule the model"
    p = Parrot()
    s = Studio(p, "Hello.")
    s.speak()
    assert p.how == {k: getattr(Sampling(), k) for k in p.how} and p.how["temperature"] is None
    s.temperature.value, s.seed.value, s.best_of.value = .5, 3, 2
    s.speak()
    assert p.how["temperature"] == .5 and p.how["seed"] == 3
    s.resetter.click()
    s.speak()
    assert p.how == {k: getattr(Sampling(), k) for k in p.how}

def test_sentences_are_heard_as_they_come_and_the_rest_can_be_cancelled():
    p = Parrot()
    p.gate = threading.Semaphore(2)
    s = Studio(p, "One. Two. Three. Four.")
    s.button.click()
    until = time.monotonic()+20
    while s.bar.value < 2 and time.monotonic() < until: time.sleep(.01)
    assert len(s.live.children) == 2 and s.bar.max == 4 and s.button.disabled and not s.canceller.disabled
    assert all("<audio" in c.value and "onended" in c.value for c in s.live.children)
    s.canceller.click()
    p.gate.release()
    s.work.join(20)
    assert s.takes[0][2].seconds == pytest.approx(.2) and "cancelled" in s.says.value and not s.button.disabled

def test_mistakes_are_shown_not_raised():
    s = Studio(Parrot(), "")
    assert s.speak() is None and "text was empty" in s.says.value and not s.takes and not s.button.disabled
    n = len(s.voices)
    assert not s.hear("x", b"no sound") and "not a sound file" in s.says.value
    s.mail.value = base64.b64encode(b"").decode()
    assert len(s.voices) == n

def test_letters_that_nobody_reads_are_told():
    assert left_out("Is it you? 你好, café, Łódź 3 – ok") == "你好"
    s = Studio(Parrot(), "Hello, 你好.")
    s.speak()
    assert "你好" in s.says.value and "left out" in s.says.value
    s.text.value = "Hello."
    s.speak()
    assert s.says.value == ""

def test_text_is_escaped():
    s = Studio(Parrot(), "<script>alert(1)</script>")
    s.speak()
    s.hear("<img src=x onerror=alert(1)>", packaged_voice())
    assert "<script>" not in s.out.value and "<img src=x" not in s.says.value+s.look.value+s.out.value

def test_upload_and_record():
    s = Studio(Parrot(), "Hello.")
    there = s.who.options
    s.words.value = "what I said"
    s.upload.value = ({"name":"me.ogg", "type":"audio/ogg", "size":1,
        "content":memoryview(packaged_voice().read_bytes()), "last_modified":datetime.now()},)
    assert s.who.value == "me.ogg" and s.voices["me.ogg"].text == "what I said" and s.words.value == ""
    assert "resampled" in s.says.value
    for _ in range(2):
        s.mail.value = base64.b64encode(np.random.default_rng(0).integers(-9999, 9999,
            48000).astype("<i2").tobytes()).decode()
    assert s.who.options == (*there, "me.ogg", "recording 1", "recording 2") and s.mail.value == ""
    assert s.voices["recording 2"].clip.seconds == 2. and "ruth" in there

def test_a_recording_is_heard_seen_and_scored():
    s = Studio(Parrot(), check=lambda clip: [(True, f"looked at {clip.seconds:.1f} s")])
    s.hear("me.ogg", packaged_voice())
    assert players(s.look) == 1 and 'alt="Waveform' in s.look.value
    assert "6.7 s, level" in s.look.value and "dB below the voice" in s.look.value
    assert "<li>resampled</li>" in s.look.value
    assert "! looked at 6.7 s" in s.look.value
    s.who.value = "ruth"
    assert s.look.value == ""
    s.who.value = "me.ogg"
    assert players(s.look) == 1

def test_a_picture_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 'alt="a second"' in picture(Clip.load(packaged_voice()).cut(0, 1), "a second")

def test_rename_delete_remove_and_undo():
    s = Studio(Parrot(), "Hello.")
    s.deleter.click()
    assert "stays" in s.says.value
    s.hear("me.ogg", packaged_voice())
    s.name.value = "ruth"
    s.renamer.click()
    assert "give one that no other voice has" in s.says.value
    s.name.value = "me"
    s.renamer.click()
    assert s.who.value == "me" and "me.ogg" not in s.voices and players(s.look) == 1
    s.deleter.click()
    assert "me" not in s.voices
    s.undoer.click()
    assert s.who.value == "me" and players(s.look) == 1
    s.undoer.click()
    assert s.who.value == "me.ogg"
    for seed in (1, 2, 3):
        s.seed.value = seed
        s.speak()
    s.left.value = 1
    s.remover.click()
    assert [t[0].split("seed ")[1][0] for t in s.takes] == ["2", "3"]
    s.undoer.click()
    assert [t[0].split("seed ")[1][0] for t in s.takes] == ["1", "2", "3"]
    for _ in range(9): s.undoer.click()
    assert "nothing to undo" in s.says.value and not s.takes and "me.ogg" not in s.voices

def test_packaged_voices_can_be_chosen():
    s = Studio(Voice.load(), "Hello.")
    s.who.value = "ruth"
    assert s.chosen().prompt.consent and s.speak().seconds > .2 and "ruth" in s.takes[0][0]
    assert s.takes[0][2].words[0][0] == "Hello."

def test_without_ipywidgets():
    code = ("import sys; sys.modules['ipywidgets']=None\nimport harmonica.studio as s\n"
        "try: s.Studio()\nexcept ImportError as e: print(e)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "the studio needs ipywidgets: pip install ipywidgets", out.stderr

# -- in a browser: HARMONICA_SHOTS=folder keeps what it looked like

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

NOTEBOOK = Path(__file__).resolve().parents[1]/"examples/studio.ipynb"

@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROME is None: pytest.skip("no Chromium here")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROME, args=["--no-sandbox",
            "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"])
        yield browser
        browser.close()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

@contextmanager
def served(command, folder, env):
    "A server that runs meanwhile, and its log"
    log = folder/"log.txt"
    with open(log, "w") as out:
        server = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env})
    try: yield server, log
    finally:
        server.terminate()
        server.wait(60)

def opened(browser, url, server, log):
    "A page of a server that may need a while to be there"
    error = importlib.import_module("playwright.sync_api").Error
    page = browser.new_context(viewport=dict(width=1000, height=1500), permissions=["microphone"]).new_page()
    until = time.monotonic()+300
    while True:
        try:
            page.goto(url, timeout=90_000)
            return page
        except error:
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(1)

@pytest.fixture(scope="module", params=["voila", "jupyterlab"])
def page(request, browser, tmp_path_factory):
    "The studio as Voila and as JupyterLab serve it, in headless Chromium"
    pytest.importorskip(request.param, reason=f"{request.param} is not installed: pip install {request.param}")
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    notebook = shutil.copy(NOTEBOOK, folder)     # JupyterLab writes into what it opens, and a voice is saved beside it
    voila = request.param == "voila"
    own = ["studio.ipynb"] if voila else ["--allow-root", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None"]
    command = [request.param, "--no-browser", f"--port={port}", *own]
    settings = dict(JUPYTERLAB_SETTINGS_DIR=f"{folder}/settings", JUPYTERLAB_WORKSPACES_DIR=f"{folder}/workspaces")
    with served(command, folder, settings) as (server, log):
        url = f"http://127.0.0.1:{port}" + ("" if voila else f"/lab/tree/{Path(notebook).name}")
        page = opened(browser, url, server, log)
        if not voila:
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=180_000)
            page.get_by_text("| Idle").wait_for(timeout=180_000)       # the kernel is there
            page.locator(".lm-MenuBar-item", has_text="Run").click()
            page.get_by_text("Run All Cells", exact=True).click()
        page.get_by_role("button", name="Speak").wait_for(timeout=180_000)
        page.kind = request.param
        yield page

def test_upload_speak_play_and_save_in_a_browser(page):
    with page.expect_file_chooser() as chooser: page.locator("button.widget-upload").click()
    chooser.value.set_files(str(packaged_voice("otis")))
    page.get_by_text("dB below the voice").wait_for(timeout=180_000)
    page.locator(".widget-textarea textarea:visible").first.fill("Good morning. Is it me you hear?")
    page.get_by_role("button", name="Speak").click()
    page.locator("img[alt*='take 1']").wait_for(timeout=240_000)
    page.get_by_label("Seed").click(click_count=3)
    page.keyboard.type("2")                      # as a person would: a box that is filled by a script tells nobody
    page.get_by_role("button", name="Speak").click()
    page.locator("img[alt*='take 2']").wait_for(timeout=240_000)
    page.locator("div:has(> a[download])", has_text="seed 2, temperature own").last.wait_for(timeout=20_000)
    takes = page.locator("div:has(> a[download]) > audio")
    assert takes.count() == 2
    for i in range(2):   # they last, and they play
        assert takes.nth(i).evaluate("""a => new Promise(r => {
            a.onplaying = () => setTimeout(() => { a.pause(); r(a.currentTime) }, 300);
            a.play() })""") > 0
        assert 1 < takes.nth(i).evaluate("a => a.duration") < 6
    with page.expect_download() as sound: page.locator("a[download='take-1.flac']").click()
    assert 1 < Clip.load(sound.value.path()).seconds < 6
    page.get_by_placeholder("Before a voice is saved").fill("My own voice, for my own use.")
    page.get_by_role("button", name="Save voice").click()
    with page.expect_download(timeout=60_000) as kept: page.locator("a[download='otis.voice']").click()
    assert Voice.load(kept.value.path()).prompt.consent == "My own voice, for my own use."
    photograph(page, "")

def photograph(page, what):
    if folder := os.environ.get("HARMONICA_SHOTS"):
        page.screenshot(path=f"{folder}/{page.kind}{what}.png", full_page=True)

def test_record_in_a_browser(page):
    "Chromium's own microphone beeps once a second"
    button = page.locator("button[onclick]")
    button.click()
    page.get_by_text(re.compile("^Stop 4 s")).wait_for(timeout=60_000)
    photograph(page, "-recording")
    button.click()
    page.get_by_text(re.compile("heard recording 1")).wait_for(timeout=60_000)
    assert button.text_content() == "Record"
    page.locator("option:checked", has_text="recording 1").wait_for(state="attached", timeout=20_000)

def test_a_phone_need_not_scroll_sideways(page):
    if page.kind != "voila": pytest.skip("JupyterLab itself is made for wide screens")
    page.set_viewport_size(dict(width=360, height=780))
    photograph(page, "-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "it scrolls sideways on a phone"
