/* The record button of 65_studio: b is the button, NAME the class of the hidden box that gets the sound */
(async b => {
  if (b.rec) return b.rec.stop();
  let mic;
  try { mic = await navigator.mediaDevices.getUserMedia({audio: true}) }
  catch (e) { b.textContent = 'No microphone: ' + e.message; return }
  const rec = b.rec = new MediaRecorder(mic), parts = [], began = Date.now();
  const ear = new AudioContext(), meter = ear.createAnalyser(), wave = new Float32Array(meter.fftSize);
  ear.createMediaStreamSource(mic).connect(meter);
  const tick = setInterval(() => {
    meter.getFloatTimeDomainData(wave);
    const level = Math.min(8, Math.round(8 * Math.sqrt(Math.max(...wave.map(Math.abs)))));
    const shown = '\u2588'.repeat(level) + '\u2591'.repeat(8 - level);
    b.textContent = `Stop ${Math.round((Date.now() - began) / 1000)} s ${shown}`;
  }, 200);
  rec.ondataavailable = e => parts.push(e.data);
  rec.onstop = async () => {
    clearInterval(tick); ear.close(); mic.getTracks().forEach(t => t.stop()); b.rec = null; b.textContent = 'Record';
    const sound = await new AudioContext({sampleRate: 24000}).decodeAudioData(await new Blob(parts).arrayBuffer());
    const whole = v => 32767 * Math.max(-1, Math.min(1, v));
    const bytes = new Uint8Array(Int16Array.from(sound.getChannelData(0), whole).buffer);
    let s = ''; for (let i = 0; i < bytes.length; i += 32768) s += String.fromCharCode(...bytes.subarray(i, i + 32768));
    const box = document.querySelector('.NAME textarea'); box.value = btoa(s);
    for (const e of ['input', 'change']) box.dispatchEvent(new Event(e, {bubbles: true}));
  };
  rec.start(); setTimeout(() => rec.state == 'recording' && rec.stop(), 15000);
})(this)
