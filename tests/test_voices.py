"Packaged voices by name, what their owners agreed to, when each word is said, and the mark in what is spoken"
import json, os, time
import numpy as np, pytest, torch
from harmonica.codec import Clip, packaged_voice, packaged_voices
from harmonica.infer import NO_CONSENT, PAUSES, Voice
from harmonica.watermark import NOTE, is_synthetic, weights_file
from test_infer import me, one_line, reader, tiny_codec, tiny_models, voice # noqa: F401 (fixtures)

TEXT = "It was late, and nobody came."

def test_a_name_is_a_voice(voice, tmp_path, monkeypatch):
    ruth = voice.like("ruth")
    assert ruth.prompt.consent == packaged_voices()["ruth"]["consent"]
    assert torch.equal(ruth.prompt.codes, voice.like(packaged_voice("ruth")).prompt.codes)
    assert np.array_equal(voice.say("Hi.", reference="ruth").samples, ruth.say("Hi.").samples)
    one_line(lambda: voice.like("nobody"), "nobody")
    monkeypatch.chdir(tmp_path)
    Clip.load(packaged_voice("otto")).save(tmp_path/"o.wav")
    os.rename("o.wav", "ruth")
    # a file of that name comes first
    assert not torch.equal(voice.like("ruth").prompt.codes, ruth.prompt.codes)

def test_consent_goes_with_the_voice(voice, me, tmp_path):
    p = me.save(tmp_path/"me.voice", consent=" The reader, for tests. ")
    again = voice.like(p)
    assert again.prompt.consent == "The reader, for tests."
    assert again.prompt.agreed.startswith(time.strftime("%Y", time.gmtime())) and NO_CONSENT not in again.notes
    # and is not lost in a copy
    assert voice.like(again.save(tmp_path/"copy.voice")).prompt.agreed == again.prompt.agreed
    none = voice.like(me.save(tmp_path/"none.voice"))
    assert NO_CONSENT in none.notes and NO_CONSENT not in me.notes
    assert voice.like(none.save(tmp_path/"twice.voice")).notes.count(NO_CONSENT) == 1
    assert NO_CONSENT not in voice.like(none.save(tmp_path/"now.voice", consent="Asked later.")).notes
    one_line(lambda: me.save(tmp_path/"x.voice", consent=" "), "consent", "agreed")

def test_words_are_timed(me):
    for text in (TEXT, "At 10:45 the FBI came.", "One. Two!\n\nThree, four."):
        clip = me.say(text, timings=True)
        said = " ".join(me.pieces(text)).split()
        assert [w for w,_,_ in clip.words] == said
        times = [t for _,a,b in clip.words for t in (a, b)]
        assert times == sorted(times) and 0 <= times[0]
    assert me.say(TEXT).words == []
    one_line(lambda: me.say(TEXT, chunk=.4, timings=True), "timings", "chunk")

def test_timed_words_lie_in_their_sentence(me):
    first, second = list(me.stream("It was late already. Nobody came that night.", timings=True))
    whole = Clip.join([first, second])
    n = len(first.words)
    assert n == 4 and len(whole.words) == 8
    assert whole.words[n][1] == pytest.approx(first.seconds + second.words[0][1], abs=.002)

def test_paragraphs_pause(me):
    one, two = "It was late already. Nobody came that night.", "It was late already.\n\nNobody came that night."
    assert [p.rstrip("\n") for p in me.pieces(two)] == me.pieces(one)
    assert len(me.say(two)) - len(me.say(one)) == pytest.approx((PAUSES["\n"]-PAUSES["."])*24000, abs=2)
    assert me.pieces("日本\n\nHello there, you.") == ["Hello there, you."]
    one_line(lambda: me.pieces("?!\n\n!?"), "spoken")

@pytest.mark.skipif(weights_file() is None, reason="resemble-perth is not installed")
def test_what_is_spoken_is_marked(me):
    long = TEXT*3
    plain = me.say(long, watermark=False)
    assert not np.array_equal(plain.samples, me.say(long).samples) and len(plain) == len(me.say(long))
    assert plain.comment == me.say(long).comment == NOTE
    assert np.array_equal(Clip.join(me.stream(long)).samples, me.say(long).samples)
    one_line(lambda: me.say(long, watermark="no"), "watermark", "True or False")

@pytest.mark.skipif(weights_file() is None, reason="resemble-perth is not installed")
def test_the_packaged_voice_bears_the_mark():
    v = Voice.load("ruth")
    for clip in (v.say(TEXT), Clip.join(v.stream(TEXT, chunk=.3))): assert is_synthetic(clip)["marked"]
    assert not is_synthetic(v.say(TEXT, watermark=False))["marked"]

def test_a_folder_holds_models_and_voice(voice, me, tmp_path, monkeypatch):
    import huggingface_hub
    f = voice.like("otto").save_pretrained(tmp_path/"v")
    assert {"codec.safetensors", "ar.safetensors", "nar.safetensors", "prompt.voice", "config.json",
        "README.md"} == {p.name for p in f.iterdir()}
    assert json.loads((f/"config.json").read_text())["model_type"] == "harmonica"
    assert packaged_voices()["otto"]["consent"] in (f/"README.md").read_text()
    again = Voice.from_pretrained(f, device="cpu")
    assert np.array_equal(again.say("Hi.").samples, Voice.from_pretrained(str(f), device="cpu").say("Hi.").samples)
    assert torch.equal(again.prompt.codes, voice.like("otto").prompt.codes)
    asked = {}
    def fetched(name, **kw):
        asked.update(kw, name=name)
        return str(f)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert Voice.from_pretrained("owner/voice", device="cpu", revision="v1").say("Hi.").seconds > 0
    assert asked["name"] == "owner/voice" and asked["revision"] == "v1"
    sent = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, name, **kw: sent.append((name, kw)))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, repo_id, folder_path,
        **kw: sent.append(sorted(os.listdir(folder_path))) or "https://commit")
    assert again.push_to_hub("owner/voice") == "https://commit"
    assert sent[0] == ("owner/voice", dict(private=True, exist_ok=True)) and "ar.safetensors" in sent[1]
    (f/"nar.safetensors").unlink()
    one_line(lambda: Voice.from_pretrained(f), "nar.safetensors", "save_pretrained")
    one_line(lambda: Voice.from_pretrained(tmp_path/"none"), "no folder", "owner/name")
