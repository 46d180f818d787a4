"The studio without a browser"
import base64, subprocess, sys
from datetime import datetime
import numpy as np, pytest
from harmonica.codec import Clip, packaged_voice
from harmonica.studio import Studio

pytest.importorskip("ipywidgets")

class Parrot:
    "Stands in for a Voice: says what it heard"
    notes = []
    def __init__(self, clip=None): self.clip = clip
    def like(self, sound, text=None):
        p = Parrot(Clip.load(sound)); p.notes, p.text = ["resampled"], text
        return p
    def say(self, text, **how):
        if not text.strip(): raise ValueError("text was empty; it needs at least one word to say: try 'Hello.'")
        self.how = how
        return self.clip or Clip(np.ones(2400)*.1)

    def save(self, path, consent):
        path.write_text(consent)

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
    s.keeper.click()
    assert "nothing was saved" in s.says.value   # each voice is asked for

def test_a_kept_voice_says_who_agreed(tmp_path):
    from harmonica.infer import Voice
    s = Studio(Voice.load())
    s.hear("me.ogg", packaged_voice())
    s.consent.value = "My own voice, for my own use."
    kept = Voice.load(s.keep(tmp_path), codec=s.voice.codec, ar=s.voice.ar, nar=s.voice.nar)
    assert kept.prompt.consent == "My own voice, for my own use." and kept.prompt.agreed

def test_speak_and_compare():
    s = Studio(Parrot(), "Hello.")
    assert s.speak().seconds == .1
    s.seed.value, s.speed.value = 7, 1.5
    s.button.click()
    assert len(s.takes) == 2 and "seed 7" in s.takes[1][0] and "speed 1.5" in s.takes[1][0]
    shown = s.out.outputs[0]["data"]["text/html"]
    assert shown.count("<audio") == 2 and shown.index("seed 7") < shown.index("seed 0")
    assert not s.button.disabled

def test_mistakes_are_shown_not_raised():
    s = Studio(Parrot(), "")
    assert s.speak() is None and "text was empty" in s.says.value and not s.takes and not s.button.disabled
    assert not s.hear("x", b"no sound") and "not a sound file" in s.says.value
    s.mail.value = base64.b64encode(b"").decode(); assert len(s.voices) == 1

def test_text_is_escaped():
    s = Studio(Parrot(), "<script>alert(1)</script>"); s.speak()
    assert "<script>" not in s.out.outputs[0]["data"]["text/html"]

def test_upload_and_record():
    s = Studio(Parrot(), "Hello.")
    s.words.value = "what I said"
    s.upload.value = ({"name":"me.ogg", "type":"audio/ogg", "size":1, "content":memoryview(packaged_voice().read_bytes()), "last_modified":datetime.now()},)
    assert s.who.value == "me.ogg" and s.voices["me.ogg"].text == "what I said" and s.words.value == "" and "resampled" in s.says.value
    for _ in range(2): s.mail.value = base64.b64encode(np.arange(4800, dtype="<i2").tobytes()).decode()
    assert s.who.options == ("packaged reader", "me.ogg", "recording 1", "recording 2") and s.mail.value == ""
    assert s.voices["recording 2"].clip.seconds == .2

def test_without_ipywidgets():
    code = "import sys; sys.modules['ipywidgets']=None\nimport harmonica.studio as s\ntry: s.Studio()\nexcept ImportError as e: print(e)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "the studio needs ipywidgets: pip install ipywidgets", out.stderr
