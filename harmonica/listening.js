// A blind A/B test: choices stay in the browser until they are saved. 66_report puts this into the page
const data = document.body.dataset.key, store = 'harmonica ' + data.length + data.slice(-40);
const key = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(data), c => c.charCodeAt(0))));
const chosen = i => (document.querySelector(`input[name=q${i}]:checked`) || {}).value || null;
const taken = (k, c) => c === 'left' ? k.left : c === 'right' ? k.right : c;
const choices = () => key.map((k, i) => ({...k, choice: chosen(i), preferred: taken(k, chosen(i))}));
const tell = () => {
  const c = choices(), d = c.filter(x => x.choice).length;
  document.getElementById('left').textContent = `${d} of ${key.length} answered`;
  document.getElementById('save').disabled = !d;
  try { localStorage.setItem(store, JSON.stringify(c.map(x => x.choice))) } catch {}
};
try {
  (JSON.parse(localStorage.getItem(store)) || []).forEach((v, i) => {
    const b = v && document.querySelector(`input[name=q${i}][value=${v}]`);
    if (b) b.checked = true;
  });
} catch {}
document.addEventListener('change', tell);
tell();
const hush = e => document.querySelectorAll('audio').forEach(a => { if (a !== e.target) a.pause() });
document.addEventListener('play', hush, true);
document.getElementById('save').onclick = () => {
  const text = JSON.stringify({schema: 'harmonica-listening', version: 1, choices: choices()}, null, 1);
  const u = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  const l = document.createElement('a');
  l.href = u;
  l.download = 'choices.json';
  l.click();
};
