"""The page of `dailies label`: one clip at a time, four keys.  No outside file; script and style carry a nonce."""

STYLE = """
:root { color-scheme: light dark; --soft: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; margin: 0; } .soft { color: var(--soft); } #strip { display: flex; gap: 3px; flex-wrap: wrap; }
#strip img { height: 62px; opacity: .55; } #strip img.on { opacity: 1; outline: 2px solid #3b6ea5; }
#film { width: 100%; height: 420px; object-fit: contain; background: #111; display: block; margin: .6rem 0; }
progress { width: 100%; } button { font: inherit; padding: .4rem 1rem; margin-right: .5rem; }
kbd { color: var(--soft); }
#trouble { color: #c2553f; }
"""

PLAYER = """
const token = document.querySelector('meta[name=token]').content;
const at = id => document.getElementById(id);
async function call(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: 'POST', headers: {'Content-Type': 'application/json', 'X-Dailies-Token': token},
    body: JSON.stringify(body)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.status);
  return found;
}
function step() {
  const pictures = at('strip').children;
  if (!pictures.length) return;
  for (const p of pictures) p.classList.remove('on');
  pictures[shown % pictures.length].classList.add('on');
  at('film').src = pictures[shown % pictures.length].src; shown++;
}
"""
"""What every page needs: calls with the token, and the clip played frame by frame.  A page declares `shown`."""

_SCRIPT = """
let item = null, shown = 0, timer = null, busy = false;
function show(next) {
  item = next.item; shown = 0;
  at('done').value = next.done; at('done').max = Math.max(next.all, 1);
  at('count').textContent = next.done + ' of ' + next.all + ' answered';
  at('work').hidden = !item; at('end').hidden = !!item; at('trouble').textContent = '';
  if (!item) return;
  at('rule').textContent = item.title || item.rule + ': ' + item.reason + '?';
  at('score').textContent = item.detail || item.column + ' ' + item.score.toPrecision(4) +
    ' (' + item.bounds + '), clip ' + item.clip_id.slice(0, 8) + ', ' + item.about;
  const strip = at('strip'); strip.replaceChildren();
  for (let k = 0; k < item.frames; k++) {
    const picture = new Image(); picture.src = '/frame/' + item.clip_id + '/' + k + '.jpg'; strip.append(picture);
  }
  at('film').hidden = !item.frames; at('none').hidden = item.frames > 0; step();
}
async function say(label) {
  if (busy || (!item && label !== 'undo')) return;
  busy = true;
  try {
    show(label === 'undo' ? await call('/api/undo', {}) :
      await call('/api/label', {rule: item.rule, clip_id: item.clip_id, label: label}));
  } catch (e) { at('trouble').textContent = e.message; }
  busy = false;
}
const keys = {k: 'keep', ArrowRight: 'keep', r: 'reject', ArrowLeft: 'reject', s: 'skip', u: 'undo'};
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.repeat || !(e.key in keys)) return;
  e.preventDefault(); say(keys[e.key]);
});
for (const b of document.querySelectorAll('button')) b.addEventListener('click', () => say(b.dataset.label));
setInterval(step, 280);
call('/api/next').then(show, e => { at('trouble').textContent = e.message; });
"""

_BODY = """
<h1 id="rule">...</h1><p id="score" class="soft"></p>
<div id="work" hidden><img id="film" alt="the clip, frame by frame"><p id="none" hidden>It has no proxy frames.</p>
<div id="strip"></div><p>
<button data-label="reject">yes, reject <kbd>r</kbd></button><button data-label="keep">no, keep <kbd>k</kbd></button>
<button data-label="skip">cannot say <kbd>s</kbd></button><button data-label="undo">undo <kbd>u</kbd></button></p></div>
<div id="end" hidden><p>Every question is answered. <code>dailies calibrate</code> shows what the answers say.</p>
<button data-label="undo">undo <kbd>u</kbd></button></div>
<p id="trouble"></p><progress id="done" value="0" max="1"></progress><p class="soft" id="count"></p>
"""


def page(token: str, nonce: str) -> str:
    """The whole page; token and nonce are URL-safe text of our own making."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>dailies label</title>"
        f"<meta name='token' content='{token}'><style nonce='{nonce}'>{STYLE}</style></head>"
        f"<body>{_BODY}<script nonce='{nonce}'>{PLAYER}{_SCRIPT}</script></body></html>"
    )


def policy(nonce: str) -> str:
    """The Content-Security-Policy under which it works."""
    return (
        f"default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'nonce-{nonce}'; "
        f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
