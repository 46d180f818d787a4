"The server as it is met elsewhere: its page in a browser, its container, behind Ray"
import os, re, shutil, socket, subprocess, sys, threading, time
from contextlib import contextmanager
from pathlib import Path
import pytest
from harmonica.codec import Clip, packaged_voice, packaged_voices

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

@pytest.fixture
def mouth():
    pytest.importorskip("starlette")
    from test_serve import Mouth
    return Mouth()

@pytest.fixture
def address(mouth):
    "A server in this process, whose voice says a tone a word"
    uvicorn = pytest.importorskip("uvicorn")
    from harmonica.serve import make_app
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(make_app(mouth), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(300):
        if server.started: break
        time.sleep(.1)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)

@pytest.fixture
def browser():
    if CHROMIUM is None: pytest.skip("no Chromium on this machine")
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with play.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
        yield browser
        browser.close()

@contextmanager
def opened(browser, address, script=""):
    "The page with all of its voices, and how to look at it; whatever goes wrong in it is an error here"
    from playwright.sync_api import expect
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.add_init_script(script)
    page.goto(address)
    see = lambda at: expect(page.locator(at))
    see("#voice option").to_have_count(len(packaged_voices()), timeout=60000)
    yield page, see, wrong
    page.close()

COUNT = """window.played = 0
const start = AudioBufferSourceNode.prototype.start
AudioBufferSourceNode.prototype.start = function(at) { played += this.buffer.duration; return start.call(this, at) }"""

def test_the_page_is_heard_while_the_rest_is_made_and_can_be_stopped(address, browser, mouth, tmp_path):
    with opened(browser, address, COUNT) as (page, see, wrong):
        page.fill("#text", "one two three")
        mouth.gate.clear()                                             # nothing behind the first word is made yet
        page.click("#speak")
        see("#says").to_contain_text("more to come", timeout=60000)
        assert 0 < page.evaluate("played") < .15 and not mouth.closed
        mouth.gate.set()
        see("#player").to_be_visible(timeout=60000)
        assert abs(page.evaluate("played")-.3) < .01
        see("#stop").to_be_hidden(timeout=20000)                       # all was heard
        see("#says").to_have_text("")
        mouth.gate.clear()
        page.fill("#text", "one two "+"three "*500)
        page.click("#speak")
        see("#says").to_contain_text("more to come", timeout=60000)
        page.click("#stop")
        see("#stop").to_be_hidden()
        see("#speak").to_be_enabled()
        see("#says").to_have_text("")
        with page.expect_download() as d: page.click("#save")          # what was heard of it
        d.value.save_as(tmp_path/"a.wav")
        assert abs(Clip.load(tmp_path/"a.wav").seconds-.1) < .01
        mouth.gate.set()
        for _ in range(200):
            if mouth.closed == 2: break
            time.sleep(.1)
        assert mouth.closed == 2, "whoever stops frees the server"
        assert not wrong, wrong

def test_a_page_whose_server_fails_says_so_and_keeps_what_was_heard(address, browser, mouth):
    def broken(text, **how):
        yield Clip([.1]*2400, 24000)
        mouth.gate.wait(60)
        raise RuntimeError("out of breath")
    mouth.stream = broken
    mouth.gate.clear()
    with opened(browser, address) as (page, see, wrong):
        page.click("#speak")
        see("#says").to_contain_text("more to come", timeout=60000)
        mouth.gate.set()
        see("#says").to_contain_text("error", timeout=20000)
        see("#player").to_be_visible()
        see("#speak").to_be_enabled()

def test_the_page_speaks_downloads_and_takes_a_voice(address, browser, tmp_path):
    with opened(browser, address) as (page, see, wrong):
        page.fill("#text", "one two three")
        page.click("#speak")
        see("#player").to_be_visible(timeout=60000)
        with page.expect_download() as d: page.click("#save")
        d.value.save_as(tmp_path/"a.wav")
        assert abs(Clip.load(tmp_path/"a.wav").seconds-.3) < .01
        assert not wrong, wrong
        page.click("#add")
        see("#says").to_contain_text("Record something")
        (tmp_path/"me.wav").write_bytes(Clip.load(packaged_voice()).encoded(".wav"))
        page.set_input_files("#file", str(tmp_path/"me.wav"))
        page.fill("#name", "me")
        page.click("#add")
        see("#says").to_contain_text("consent", timeout=60000) # nothing without it
        page.fill("#consent", "My own voice, for this test.")
        page.click("#add")
        see("#voice").to_have_value("me", timeout=60000)
        page.click("#record")
        see("#record").to_have_text("Stop", timeout=20000)
        time.sleep(1)
        page.click("#record")
        see("#record").to_have_text("Record again", timeout=20000)
        time.sleep(1)
        page.fill("#name", "recorded")
        page.click("#add")
        see("#voice").to_have_value("recorded", timeout=60000)

# -- the container

def instructions():
    "(word, rest) of each instruction, continued lines joined"
    text = re.sub(r"\\\n", " ", (ROOT/"Dockerfile").read_text())
    return [l.split(None, 1) for l in text.splitlines() if l.strip() and not l.startswith("#")]

def test_the_dockerfile_is_one():
    known = "FROM RUN WORKDIR COPY USER VOLUME EXPOSE HEALTHCHECK CMD ENV ARG LABEL ENTRYPOINT".split()
    rows = instructions()
    words = [w for w,_ in rows]
    assert words[0] == "FROM" and not set(words)-set(known) and words.count("CMD") == 1
    assert words.index("USER") < words.index("CMD") and dict(rows)["USER"] not in ("root",
        "0"), "it must not run as root"
    made = [r.split()[-1] for w,r in rows if w == "RUN" and "useradd" in r]
    assert dict(rows)["USER"] in made

def test_the_container_copies_what_there_is_and_starts_what_is_installed():
    for w,rest in instructions():
        if w == "COPY":
            *sources, target = rest.split()
            for s in sources: assert (ROOT/s).exists(), s
    import ast
    cmd = ast.literal_eval(next(rest for w,rest in instructions() if w == "CMD"))
    scripts = dict(l.split("=", 1) for l in re.findall(r"^\s*(?:console_scripts = )?(harmonica-[\w]+=\S+)",
        (ROOT/"settings.ini").read_text(), re.M))
    assert cmd[0] in scripts
    from harmonica.serve import serve
    import inspect
    assert {a[2:].replace("-", "_") for a in cmd if a.startswith("--")} <= set(inspect.signature(serve).parameters)
    extras = re.search(r"\.\[([\w,]+)\]", (ROOT/"Dockerfile").read_text())[1].split(",")
    for e in extras: assert f"{e}_requirements" in (ROOT/"settings.ini").read_text()

def test_the_container_has_what_the_build_reads_and_its_user_owns_what_it_writes():
    import fnmatch, tomllib
    rows = instructions()
    copied = [s for w,rest in rows if w == "COPY" for s in rest.split()[:-1]]
    left_out = [l.strip().rstrip("/") for l in (ROOT/".dockerignore").read_text().splitlines() if l.strip()]
    assert not [c for c in copied for l in left_out if fnmatch.fnmatch(c, l)], "copied and ignored"
    project = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]
    read = {"setup.py", "pyproject.toml", "settings.ini", "constraints.txt", "harmonica", project["readme"],
        *project["license-files"]}
    assert read <= set(copied), read-set(copied)
    # a volume takes over the owner of the folder that it hides: made by the user, after USER, in the user's home
    words = [w for w,_ in rows]
    user, after = dict(rows)["USER"], rows[words.index("USER"):]
    home = f"/home/{user}"
    made = [f"{home}/{r.split()[-1]}" for w,r in after if w == "RUN" and r.startswith("mkdir ")]
    assert ["WORKDIR", home] in after and made == [r for w,r in after if w == "VOLUME"]
    cmd = next(rest for w,rest in rows if w == "CMD")
    assert f'"--voices", "{made[0].removeprefix(home+"/")}"' in cmd
    assert words.index("VOLUME") > max(i for i,w in enumerate(words) if w == "RUN"), "what comes behind it is lost"

# -- behind Ray

def test_the_ray_example_is_short_and_answers(tmp_path):
    lines = [l for l in (ROOT/"examples/ray_serve.py").read_text().split('"""')[2].splitlines() if l.strip()]
    assert len(lines) <= 20
    pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[serve]'")
    pytest.importorskip("ray.serve")
    code = """
import ray, sys, urllib.request, json
from ray import serve
ray.init(num_cpus=2, include_dashboard=False)
from examples.ray_serve import app
serve.run(app)
say = json.dumps(dict(input="Hi.", voice="ruth", response_format="wav")).encode()
r = urllib.request.Request("http://127.0.0.1:8000/v1/audio/speech", say, {"Content-Type": "application/json"})
print('bytes:', len(urllib.request.urlopen(r, timeout=120).read()))
serve.shutdown()
ray.shutdown()
"""
    # a busy machine starts slowly
    r = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, "HARMONICA_REPLICAS": "1", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120"})
    found = re.search(r"bytes: (\d+)", r.stdout)
    assert found and int(found[1]) > 5000, r.stderr[-2000:]
